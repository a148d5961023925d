"""A provider that is down, slow, oversized, misconfigured or impersonated; keys that rotate or are flooded."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from session_core.errors import DiscoveryError
from session_core.oidc.http import OpHttp
from session_core.oidc.verify import keys
from session_core.oidc.verify.jwk_set import parse_jwk_set
from session_core.urls import is_provider_url
from tests.session_core.oidc.fake_op import EC_KEY, ED_KEY, GET_PAGE, GONE, ISSUER, OTHER_RSA_KEY, RSA_KEY, World, b64, public_jwk

pytestmark = pytest.mark.anyio

CONFIGURATION = "/.well-known/openid-configuration"
OLD, NEW = public_jwk(RSA_KEY, "k1"), public_jwk(OTHER_RSA_KEY, "k2")
BOMB = gzip.compress(bytes(50_000_000), 1)
IMPATIENT, PATIENT = 0.5, 30.0


@contextmanager
def within(seconds: float, reason: str) -> Iterator[None]:
    """Assert limits of the block's duration and of this process's CPU time, which other programs do not affect."""
    begun, worked = time.monotonic(), time.process_time()
    yield
    assert time.process_time() - worked < seconds
    assert time.monotonic() - begun < (seconds if reason == "timeout" else PATIENT / 2)


async def world_for(reason: str) -> World:
    """A world whose provider misbehaves. The timeout is short only where the provider never responds."""
    made = World(http_timeout_seconds=IMPATIENT if reason == "timeout" else PATIENT)
    await made.plant()
    return made


@pytest.fixture
async def world() -> World:
    made = World()
    await made.plant()
    return made


def zeros(_: httpx2.Request) -> httpx2.Response:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(1_000_000)

    return httpx2.Response(200, headers={"content-type": "application/json"}, content=body())


def drip(_: httpx2.Request) -> httpx2.Response:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    return httpx2.Response(200, headers={"content-type": "application/json"}, content=body())


async def hang(_: httpx2.Request) -> httpx2.Response:
    await asyncio.sleep(60)
    raise AssertionError


def fail(_: httpx2.Request) -> httpx2.Response:
    message = "no route to host"
    raise httpx2.ConnectError(message)


def bomb(_: httpx2.Request) -> httpx2.Response:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return httpx2.Response(200, headers=headers, content=iterate(BOMB))


async def iterate(body: bytes) -> AsyncIterator[bytes]:
    yield body


def json_text(text: str, media_type: str = "application/json") -> Any:
    return lambda _: httpx2.Response(200, headers={"content-type": media_type}, text=text)


MISBEHAVIOURS = {
    "down": (fail, "unreachable"),
    "500": (lambda _: httpx2.Response(500, json={}), "status"),
    "html": (json_text("<html>login</html>", "text/html"), "malformed"),
    "json as html": (json_text("{}", "text/html"), "malformed"),
    "no json": (json_text("<html>"), "malformed"),
    "array": (json_text("[]"), "malformed"),
    "redirect": (lambda _: httpx2.Response(302, headers={"location": "https://evil.example/"}), "status"),
    "50 MB": (zeros, "too_large"),
    "gzip bomb": (bomb, "compressed"),
    "hangs": (hang, "timeout"),
    "drips": (drip, "timeout"),
}


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.attack("32")
@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_a_faulty_discovery_is_rejected(name: str) -> None:
    reply, reason = MISBEHAVIOURS[name]
    world = await world_for(reason)
    world.op.replies[CONFIGURATION] = reply
    with within(2, reason):
        response = await world.browser.get("/auth/login", headers=GET_PAGE)
    assert response.status_code == 503
    await world.assert_rejected(response, f"discovery_{reason}")
    # The next login succeeds at once, without a restart.
    world.op.replies.clear()
    assert (await world.login()).status_code == 303


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.attack("32")
@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_a_faulty_key_set_is_rejected(name: str) -> None:
    reply, reason = MISBEHAVIOURS[name]
    world = await world_for(reason)
    world.op.replies["/jwks"] = reply
    with within(2, reason):
        response = await world.login()
    await world.assert_rejected(response, f"jwks_{reason}")
    world.op.replies.clear()
    assert (await world.login()).status_code == 303


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.attack("34")
@pytest.mark.parametrize("name", MISBEHAVIOURS)
@pytest.mark.parametrize("endpoint", ["token", "userinfo"])
async def test_a_faulty_token_or_userinfo_endpoint_is_rejected(name: str, endpoint: str) -> None:
    reply, reason = MISBEHAVIOURS[name]
    world = await world_for(reason)
    world.op.replies[f"/{endpoint}"] = reply
    if (name, endpoint) == ("array", "token"):
        reason = "malformed"
    with within(2, reason):
        response = await world.login()
    assert response.status_code == 502
    await world.assert_rejected(response, f"{endpoint}_{reason}")
    assert {call.url.host for call in world.op.calls} == {"op.example"}


@pytest.mark.attack("32")
async def test_sessions_work_while_the_provider_is_down(world: World) -> None:
    await world.login()
    world.op.replies = dict.fromkeys((CONFIGURATION, "/jwks", "/token"), fail)
    world.clock.advance(minutes=30)
    assert await world.subject() == "alice"


@pytest.mark.attack("32")
async def test_logins_work_with_metadata_and_keys_fetched_before_the_outage(world: World) -> None:
    await world.login()
    world.clock.advance(minutes=59)
    world.op.replies = {CONFIGURATION: fail, "/jwks": fail}
    assert (await world.login()).status_code == 303
    world.clock.advance(minutes=2)
    assert (await world.login()).status_code == 502 or world.reasons()[-1] == "jwks_unreachable"


@pytest.mark.attack("33")
@pytest.mark.attack("oidcc-client-test-discovery-issuer-mismatch")
@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"issuer": "https://evil.example"}, "discovery_issuer_mismatch"),
        ({"issuer": f"{ISSUER}/"}, "discovery_issuer_mismatch"),
        ({"issuer": GONE}, "discovery_malformed"),
        ({"issuer": 1}, "discovery_malformed"),
        ({"token_endpoint": GONE}, "discovery_malformed"),
        ({"jwks_uri": None}, "discovery_malformed"),
        ({"authorization_endpoint": "http://op.example/authorize"}, "discovery_insecure_endpoint"),
        ({"token_endpoint": "http://op.example/token"}, "discovery_insecure_endpoint"),
        ({"token_endpoint": "http://127.0.0.1/token"}, "discovery_insecure_endpoint"),
        ({"jwks_uri": "file:///etc/passwd"}, "discovery_insecure_endpoint"),
        ({"userinfo_endpoint": "http://op.example/userinfo"}, "discovery_insecure_endpoint"),
        ({"end_session_endpoint": "javascript:alert(1)"}, "discovery_insecure_endpoint"),
        ({"revocation_endpoint": "http://op.example;sandbox"}, "discovery_insecure_endpoint"),
        ({"authorization_endpoint": "https://op.example/a\r\nx: y"}, "discovery_insecure_endpoint"),
        ({"authorization_endpoint": "https://x;sandbox"}, "discovery_insecure_endpoint"),
        ({"authorization_endpoint": "https://*"}, "discovery_insecure_endpoint"),
        ({"jwks_uri": "https://op.example/%zz"}, "discovery_insecure_endpoint"),
        ({"token_endpoint": ""}, "discovery_insecure_endpoint"),
        ({"id_token_signing_alg_values_supported": "none"}, "discovery_malformed"),
        ({"id_token_signing_alg_values_supported": ["RS256", None]}, "discovery_malformed"),
    ],
)
async def test_metadata_with_untrusted_values_is_rejected(world: World, metadata: dict[str, Any], reason: str) -> None:
    world.op.metadata = metadata
    response = await world.browser.get("/auth/login", headers=GET_PAGE)
    await world.assert_rejected(response, reason)
    assert "location" not in response.headers
    assert [call.url.path for call in world.op.calls] == [CONFIGURATION]


OPTIONAL_METADATA = (
    "userinfo_endpoint", "end_session_endpoint", "revocation_endpoint", "pushed_authorization_request_endpoint",
    "require_pushed_authorization_requests", "response_modes_supported",
)  # fmt: skip


@pytest.mark.parametrize("value", [None, "", "n/a", "not a url", 7, [], {}, [None], "https://op example/x"], ids=repr)
@pytest.mark.parametrize("name", OPTIONAL_METADATA)
async def test_malformed_optional_metadata_counts_as_absent(name: str, value: Any) -> None:
    world = World()
    world.op.metadata = {name: value}
    assert (await world.login()).status_code == 303, world.reasons()
    known = world.oidc.relying_party.connection.discovery.known
    assert known is not None
    assert getattr(known, name) in {None, False, ()}


@pytest.mark.parametrize("value", [None, [], GONE], ids=["null", "empty", "missing"])
async def test_unlisted_algorithms_narrow_nothing(value: Any) -> None:
    world = World()
    world.op.metadata = {"id_token_signing_alg_values_supported": value}
    assert (await world.login()).status_code == 303


@pytest.mark.attack("70")
@pytest.mark.parametrize(
    "host", ["x;sandbox", "*", "*.example", "x,https://y", "x y", "'self'", "x;script-src *", "u@x", "x:", "\u202ex"]
)
async def test_no_url_of_the_provider_adds_to_a_header(host: str) -> None:
    world = World()
    names = ("end_session_endpoint", "revocation_endpoint", "userinfo_endpoint")
    world.op.metadata = dict.fromkeys(names, f"https://{host}/x")
    await world.login()
    frame = await world.browser.get("/auth/frontchannel-logout", params={"iss": ISSUER, "sid": "any"})
    assert frame.headers["content-security-policy"] == f"default-src 'none'; frame-ancestors {ISSUER}"
    left = await world.browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
    assert (left.status_code, left.headers["location"]) == (303, "/")


@pytest.mark.attack("33")
@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://op.example/me", "//op.example/me", "", 7, None])
async def test_an_invalid_account_url_is_omitted_and_logins_continue(url: object) -> None:
    world = World()
    world.op.metadata = {"account_management_uri": url}
    assert (await world.login()).status_code == 303
    metadata = await world.oidc.relying_party.connection.discovery.metadata()
    assert metadata.account_management_uri is None


async def test_the_account_url_is_available() -> None:
    world = World()
    world.op.metadata = {"account_management_uri": "https://id.example/me?tab=1"}
    await world.login()
    metadata = await world.oidc.relying_party.connection.discovery.metadata()
    assert metadata.account_management_uri == "https://id.example/me?tab=1"


async def test_the_query_of_an_endpoint_is_preserved() -> None:
    world = World()
    query = "p=$b2c'x'&q=%2F"
    world.op.metadata = {"authorization_endpoint": f"{ISSUER}/authorize?{query}", "end_session_endpoint": f"{ISSUER}/end?{query}"}
    assert (await world.start()).startswith(f"{ISSUER}/authorize?{query}&")
    await world.login()
    left = await world.browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
    assert left.headers["location"].startswith(f"{ISSUER}/end?{query}&")


@pytest.mark.attack("33")
@pytest.mark.parametrize(
    ("url", "allow_http", "good"),
    [
        ("https://op.example/x?y=1", False, True),
        ("http://127.0.0.1:9000/x", True, True),
        ("http://[::1]:9000/x", True, True),
        ("http://localhost:9000/x", True, True),
        ("http://127.0.0.1:9000/x", False, False),
        ("http://op.example/x", True, False),
        ("http://127.0.0.1.evil.example/", True, False),
        ("https://user:pass@op.example/", False, False),
        ("https://op.example/#f", False, False),
        ("https:///x", False, False),
        ("https://op.example:x/", False, False),
        ("https://op.example\\@evil.example/", False, False),
        ("//op.example/", False, False),
        ("https://\u043e\u0440.example/", False, False),
        ("", False, False),
    ],
)
def test_accepted_and_refused_urls_of_a_provider(url: str, allow_http: bool, good: bool) -> None:
    assert is_provider_url(url, allow_http=allow_http) is good


@pytest.mark.attack("oidcc-client-test-discovery-openid-config")
@pytest.mark.attack("oidcc-client-test-discovery-jwks-uri-keys")
async def test_metadata_and_keys_are_fetched_once(world: World) -> None:
    for _ in range(3):
        assert (await world.login()).status_code == 303
    assert (world.op.count(CONFIGURATION), world.op.count("/jwks")) == (1, 1)
    assert world.op.count("/mtls-token") == 0


async def test_fifty_concurrent_logins_fetch_metadata_once(world: World) -> None:
    browsers = [world.new_browser() for _ in range(50)]
    await asyncio.gather(*(world.login(browser) for browser in browsers))
    assert (world.op.count(CONFIGURATION), world.op.count("/jwks")) == (1, 1)


class TestKeys:
    @pytest.mark.parametrize("value", [None, "", 7, [], {}, [None], [""], [7], True], ids=repr)
    @pytest.mark.parametrize("key", [OTHER_RSA_KEY, EC_KEY, ED_KEY], ids=["RSA", "EC", "OKP"])
    async def test_members_of_another_key_type_are_ignored(self, key: Any, value: Any) -> None:
        """Some providers send null for all of them."""
        world = World()
        world.op.key = key
        world.op.alg = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[public_jwk(key)["kty"]]
        others = ("kid", "use", "key_ops", "alg", "x5u", "x5c", "x5t", "x5t#S256", "crv", "x", "y", "n", "e", "issuer")
        world.op.jwks = [{**dict.fromkeys(others, value), **public_jwk(key)}]
        world.op.claims = {"at_hash": GONE}  # of another length for Ed25519
        assert (await world.login()).status_code == 303, world.reasons()

    @pytest.mark.attack("oidcc-client-test-signing-key-rotation")
    @pytest.mark.attack("oidcc-client-test-signing-key-rotation-just-before-signing")
    @pytest.mark.parametrize(
        ("kid", "jwks"),
        [
            ("k2", [NEW]),
            ("k2", [OLD, NEW]),
            ("k1", [public_jwk(OTHER_RSA_KEY, "k1")]),
            (None, [public_jwk(OTHER_RSA_KEY)]),
            (None, [OLD, NEW]),
            ("k2", [public_jwk(OTHER_RSA_KEY)]),
        ],
        ids=["new kid", "overlap", "same kid", "no kid", "no kid in the token", "no kid in the set"],
    )
    async def test_a_login_right_after_a_rotation_succeeds(self, world: World, kid: str | None, jwks: list[Any]) -> None:
        assert (await world.login()).status_code == 303
        world.op.key, world.op.kid, world.op.jwks = OTHER_RSA_KEY, kid, jwks
        assert (await world.login()).status_code == 303
        assert world.op.count("/jwks") == 2

    async def test_consecutive_rotations_succeed_at_once(self, world: World) -> None:
        for number in range(4):
            key, kid = (RSA_KEY, OTHER_RSA_KEY)[number % 2], f"k{number}"
            world.op.key, world.op.kid, world.op.jwks = key, kid, [public_jwk(key, kid)]
            assert (await world.login()).status_code == 303

    @pytest.mark.attack("31")
    async def test_a_thousand_logout_tokens_with_unknown_kids_cost_one_fetch_and_delay_no_rotation(self, world: World) -> None:
        await world.login()
        for number in range(1000):
            token = world.op.logout_token({"kid": f"forged-{number}"})
            assert (await world.send_logout(token)).status_code == 400
        assert world.op.count("/jwks") == 2
        world.op.key, world.op.kid, world.op.jwks = OTHER_RSA_KEY, "k2", [NEW]
        assert (await world.login()).status_code == 303
        assert world.op.count("/jwks") == 3
        assert (await world.send_logout(world.op.logout_token())).status_code == 200

    @pytest.mark.attack("31")
    async def test_forged_keys_cause_one_fetch_per_cooldown(self, world: World) -> None:
        await world.login()
        for number in range(50):
            await world.send_logout(world.op.logout_token({"kid": f"forged-{number}"}))
            world.clock.advance(seconds=1)
        assert world.op.count("/jwks") == 1 + 5

    @pytest.mark.attack("31")
    async def test_a_hundred_concurrent_tokens_cause_one_fetch(self, world: World) -> None:
        await world.login()
        tokens = [world.op.logout_token({"kid": f"forged-{number}"}) for number in range(100)]
        await asyncio.gather(*(world.send_logout(token) for token in tokens))
        assert world.op.count("/jwks") == 2

    @pytest.mark.attack("31")
    async def test_id_tokens_with_unknown_kids_cost_one_fetch_per_cooldown(self, world: World) -> None:
        await world.login()
        world.op.header = {"kid": "forged"}
        for _ in range(20):
            assert (await world.login()).status_code == 400
        assert world.op.count("/jwks") == 2

    @pytest.mark.attack("31")
    async def test_logout_tokens_do_not_repeat_requests_to_a_provider_that_is_down(self, world: World) -> None:
        world.op.replies = {CONFIGURATION: fail}
        for _ in range(20):
            assert (await world.send_logout(world.op.logout_token())).status_code == 503
        assert world.op.count(CONFIGURATION) == 1
        world.op.replies = {"/jwks": fail}
        world.clock.advance(seconds=11)
        for _ in range(20):
            assert (await world.send_logout(world.op.logout_token())).status_code == 503
        assert (world.op.count(CONFIGURATION), world.op.count("/jwks")) == (2, 1)
        world.op.replies.clear()
        assert (await world.login()).status_code == 303

    @pytest.mark.attack("oidcc-client-test-kid-absent-single-jwks")
    @pytest.mark.attack("oidcc-client-test-kid-absent-multiple-jwks")
    @pytest.mark.parametrize(
        "jwks", [[OLD], [NEW, OLD], [public_jwk(EC_KEY, "e"), public_jwk(ED_KEY, "d"), NEW, OLD], [public_jwk(RSA_KEY)]]
    )
    async def test_a_token_without_kid_is_verified(self, world: World, jwks: list[Any]) -> None:
        world.op.kid, world.op.jwks = None, jwks
        assert (await world.login()).status_code == 303

    @pytest.mark.attack("oidcc-client-test-ignores-unparseable-key-in-jwks")
    async def test_unparseable_keys_are_ignored(self, world: World) -> None:
        world.op.jwks = [
            None, 7, "key", [], {}, {"kty": "RSA"}, {"kty": "RSA", "n": "!", "e": "AQAB"}, {"kty": "RSA", "n": 1, "e": 2},
            {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}, {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"},
            {"kty": "EC", "crv": "P-256", "x": b64(b"x" * 32), "y": b64(b"y" * 32)}, {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
            {"kty": ["RSA"], "kid": "k1"}, {"kty": "RSA", "kid": 1, "n": OLD["n"], "e": "AQAB"}, OLD,
        ]  # fmt: skip
        assert (await world.login()).status_code == 303

    @pytest.mark.attack("32")
    async def test_a_key_set_of_a_hundred_thousand_keys_is_rejected(self, world: World) -> None:
        world.op.jwks = [OLD] + [{"kty": "RSA", "n": "x", "e": "AQAB"}] * 20_000
        with within(2, "work"):
            assert (await world.login()).status_code == 303
        assert len(parse_jwk_set({"keys": [OLD] * 100_000})) == 100

    @pytest.mark.attack("asvs-11.2.3")
    @pytest.mark.attack("asvs-11.6.1")
    @pytest.mark.parametrize(
        "jwk",
        [
            {**OLD, "use": "enc"},
            {**OLD, "key_ops": ["encrypt"]},
            {**OLD, "d": "AQAB"},
            {"kty": "oct", "k": b64(b"x" * 32)},
            {"kty": "RSA", "n": b64(b"\xff" * 128), "e": "AQAB"},
            {"kty": "RSA", "n": b64(b"\x00" * 128 + b"\xff" * 128), "e": "AQAB"},
            {"kty": "RSA", "n": b64(b"\xff" * 1400), "e": "AQAB"},
            {"kty": "RSA", "n": OLD["n"], "e": b64(b"\x01")},
            {"kty": "RSA", "n": OLD["n"], "e": b64(b"\x01" + bytes(3) + b"\x01")},
            {"kty": "RSA", "n": OLD["n"], "e": b64(b"\x7f" * 250 + b"\x01")},
            {"kty": "RSA", "n": OLD["n"], "e": b64(b"\x01\x00\x00")},
            {"kty": "OKP", "crv": "X25519", "x": b64(b"x" * 32)},
            {"kty": "OKP", "crv": "P-256", "x": OLD["n"]},
            {**public_jwk(EC_KEY), "crv": "secp256k1"},
        ],
    )
    def test_keys_not_for_signatures_are_ignored(self, jwk: dict[str, Any]) -> None:
        assert parse_jwk_set({"keys": [jwk]}) == ()
        assert len(parse_jwk_set({"keys": [jwk, OLD]})) == 1

    @pytest.mark.parametrize("value", [None, "", 7, [], {}, ["sig"], "x" * 513], ids=lambda value: str(value)[:9])
    @pytest.mark.parametrize("name", ["kid", "use", "alg", "key_ops", "x5t", "x5c"])
    def test_a_malformed_optional_member_of_a_key_counts_as_absent(self, name: str, value: Any) -> None:
        if (name, value) == ("key_ops", ["sig"]):
            value = "verify"  # a list without this value says that the key is not for signatures
        (key,) = parse_jwk_set({"keys": [{**public_jwk(RSA_KEY), "d": None, "k": "", name: value}]})
        assert (key.kid, key.alg) == (None, None)

    @pytest.mark.attack("71")
    @pytest.mark.parametrize("kid", [None, "k1", "forged"])
    async def test_a_forged_token_is_tried_with_a_bounded_number_of_keys(
        self, world: World, kid: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[object] = []
        verifies = keys.verifies
        monkeypatch.setattr(keys, "verifies", lambda jws, key: tried.append(key) or verifies(jws, key))
        world.op.jwks = [public_jwk(RSA_KEY, kid) for kid in (None, "k1") for _ in range(50)]
        world.op.key = OTHER_RSA_KEY
        await world.send_logout(world.op.logout_token({"kid": kid}))
        assert len(tried) == 10
        assert world.reasons("logout.rejected") == ["too_many_keys"]
        # The set was just fetched; once per cooldown it is fetched again for the token.
        world.clock.advance(seconds=11)
        for _ in range(3):
            await world.send_logout(world.op.logout_token({"kid": kid}))
        assert len(tried) == 10 + 20 + 10 + 10

    @pytest.mark.attack("71")
    async def test_a_forged_token_costs_milliseconds_with_any_key_set(self, world: World) -> None:
        for size, exponent in ((384, b"\x3f" + b"\xff" * 383), (1024, b"\xff" * 4)):
            world.op.jwks = [{"kty": "RSA", "n": b64(b"\xff" * size), "e": b64(exponent)}] * 100
            world.clock.advance(minutes=11)
            # As long as the modulus, because any other signature is refused before any computation.
            signed = world.op.logout_token({"kid": GONE}).rpartition(".")[0]
            token = f"{signed}.{b64(bytes(1) + b'x' * (size - 1))}"
            await world.send_logout(token)  # fetches the set
            worked = time.process_time()
            for _ in range(10):
                assert (await world.send_logout(token)).status_code == 400
            assert time.process_time() - worked < 1  # ten tokens; without the bounds each takes as long

    @pytest.mark.attack("71")
    @pytest.mark.attack("oidcc-client-test-kid-absent-multiple-jwks")
    async def test_the_key_named_by_the_token_is_tried_before_keys_without_kid(self, world: World) -> None:
        world.op.jwks = [*([public_jwk(OTHER_RSA_KEY)] * 50), OLD]
        assert (await world.login()).status_code == 303

    async def test_a_withdrawn_key_is_refused_after_ten_minutes(self, world: World) -> None:
        await world.login()
        world.op.jwks = [NEW]
        world.clock.advance(minutes=10)
        assert (await world.login()).status_code == 400
        assert world.reasons() == ["unknown_key"]

    @pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": None}])
    def test_an_invalid_key_set_is_rejected(self, document: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="JWK Set"):
            parse_jwk_set(document)


async def test_cookies_of_the_provider_are_not_stored(world: World) -> None:
    def with_cookie(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=world.op.configuration(), headers={"set-cookie": "sticky=1; Path=/"})

    world.op.replies[CONFIGURATION] = with_cookie
    await world.login()
    assert not any("cookie" in call.headers for call in world.op.calls)


async def test_a_network_error_is_not_chained_to_the_request_with_its_secrets() -> None:
    http = OpHttp(timeout_seconds=1, transport=httpx2.MockTransport(fail))
    with pytest.raises(DiscoveryError) as caught:
        await http.send("GET", "https://op.example", what="x", error=DiscoveryError, headers={"authorization": "Bearer s"})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    await http.close()


class TestOverARealSocket:
    """The limits also hold for bytes from a network, where the client library has its own timeouts."""

    ANSWERS = (
        ("silence", (), "timeout"),
        ("headers without end", (b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 10), "timeout"),
        ("a body that drips", (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b" "), "timeout"),
        ("a chunked body that drips", (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"), "timeout"),
        ("a huge body", (b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b" " * 2_000_000,), "too_large"),
        ("a huge header", (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 2_000_000,), "unreachable"),
        ("no http", (b"SSH-2.0-OpenSSH\r\n\r\n",), "unreachable"),
        ("a closed connection", None, "unreachable"),
    )

    @pytest.mark.attack("32")
    @pytest.mark.attack("34")
    @pytest.mark.usefixtures("virtual_time")
    @pytest.mark.parametrize(("answer", "reason"), [pytest.param(*rest, id=name) for name, *rest in ANSWERS])
    async def test_an_endless_response_is_cut_off(self, answer: tuple[bytes, ...] | None, reason: str) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            first, rest = (answer or ())[:1], (answer or ())[1:]
            try:
                writer.writelines(first)
                await writer.drain()
                while answer is not None:
                    await asyncio.sleep(0.02)
                    writer.writelines(rest)
                    await writer.drain()
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        http = OpHttp(timeout_seconds=0.4 if reason == "timeout" else PATIENT)
        try:
            with within(1.5, reason), pytest.raises(DiscoveryError) as caught:
                await http.send("GET", f"http://127.0.0.1:{port}/", what="x", error=DiscoveryError)
            assert caught.value.reason == f"x_{reason}"
        finally:
            await http.close()
            server.close()
