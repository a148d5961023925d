"""Hostile tokens: each differs from a valid one in one respect, and none gets a session.

That the good one passes is shown first; without that, every rejection here would prove nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from session_core import Identity
from tests.session_core.oidc.fake_op import (
    CLIENT_ID,
    CLIENT_SECRET,
    EC_KEY,
    GONE,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    World,
    b64,
    b64_json,
    public_jwk,
    sign,
)

pytestmark = pytest.mark.anyio

DAY = 86_400
NOW = 4_102_444_800
"""The fake clock's, in seconds."""


@pytest.fixture
async def world() -> World:
    made = World()
    await made.plant()
    return made


async def log_in_anew(world: World, case: object) -> Any:
    """Log in with a new browser; return what the new session holds. The cases of a test share one application."""
    before = {each.key async for each in world.sessions.store.scan()}
    async with world.new_browser() as browser:
        assert (await world.login(browser)).status_code == 303, (case, world.reasons())
    (stored,) = [each async for each in world.sessions.store.scan() if each.key not in before]
    held = world.oidc.tokens.refresh.store.read(stored)
    assert held is not None, case
    return held


def attack(*ids: str, **case: Any) -> Any:
    """A case with the ids of its requirements."""
    return pytest.param(*case.values(), marks=[pytest.mark.attack(each) for each in ids])


async def test_the_unmodified_token_is_accepted(world: World) -> None:
    assert (await world.login()).status_code == 303
    assert world.reasons() == []


GOOD_CLAIMS: list[dict[str, Any]] = [
    {"aud": [CLIENT_ID]},
    {"aud": [CLIENT_ID, "other"], "azp": CLIENT_ID},
    {"azp": CLIENT_ID},
    {"exp": NOW - 59},
    {"exp": NOW + 300.5},
    {"iat": NOW + 59},
    {"iat": NOW - 600},
    {"nbf": NOW + 59},
    {"at_hash": GONE},
    {"sub": "x" * 255},
    {"sid": GONE},
    {"amr": ["pwd"], "acr": "0", "extra": {"deep": [1]}},
]
MALFORMED: list[Any] = [
    None,
    "",
    7,
    -1,
    True,
    [],
    {},
    [None],
    ["x", 1],
    {"a": 1},
    "x" * 256,
    "x" * 2049,
    "a\u0000b",
    "\u0430",
    10**17,
]
OPTIONAL_CLAIMS = ("auth_time", "acr", "amr", "sid", "nbf", "c_hash", "s_hash", "name", "email", "email_verified")


async def test_a_malformed_optional_claim_counts_as_absent() -> None:
    world = World()
    # Text is malformed where a number is expected, and vice versa; well-formed values are omitted here. A `sid` may be longer.
    well_formed = {"auth_time": (), "nbf": (7,), "sid": ("x" * 256,)}
    for value in MALFORMED:
        world.op.claims = {name: GONE if value in well_formed.get(name, ()) else value for name in OPTIONAL_CLAIMS}
        world.op.claims["auth_time"] = "1" if type(value) is int and 0 <= value < 2**53 else value
        held = await log_in_anew(world, value)
        assert held.identity == Identity(issuer=ISSUER, subject="alice"), value


@pytest.mark.parametrize("name", ["azp", "at_hash"])
async def test_a_malformed_optional_binding_counts_as_absent(name: str) -> None:
    world = World()
    values: list[Any] = [None, "", 7, [], {}, [CLIENT_ID], True]
    for value in values:
        world.op.claims = {name: value}
        assert (await log_in_anew(world, value)).identity.subject == "alice"


@pytest.mark.parametrize("name", ["kid", "typ", "cty", "x5t"])
async def test_a_malformed_optional_header_counts_as_absent(name: str) -> None:
    world = World()
    values: list[Any] = [None, "", 7, [], {}, ["k1"], "x" * 513]
    for value in values:
        if name == "typ" and isinstance(value, str) and value:
            continue  # another type, although a long one
        world.op.header = {name: value}
        assert (await log_in_anew(world, value)).identity.subject == "alice"


@pytest.mark.parametrize(
    ("params", "claims", "reason"),
    [
        ({"max_age": "60"}, {"auth_time": None}, "auth_time_missing"),
        ({"max_age": "60"}, {"auth_time": str(NOW)}, "auth_time_missing"),
        ({"acr_values": "high"}, {"acr": None}, "acr_not_met"),
        ({"acr_values": "high"}, {"acr": ["high"]}, "acr_not_met"),
    ],
)
async def test_an_optional_claim_that_was_requested_is_required(
    world: World, params: dict[str, str], claims: dict[str, Any], reason: str
) -> None:
    world.op.claims = claims
    await world.assert_rejected(await world.login(**params), reason)


@pytest.mark.parametrize("claims", GOOD_CLAIMS)
async def test_a_valid_variation_is_accepted(world: World, claims: dict[str, Any]) -> None:
    world.op.claims = claims
    world.op.userinfo = {"sub": claims.get("sub", "alice")}
    assert (await world.login()).status_code == 303, world.reasons()


BAD_CLAIMS = [
    attack("23", "oidcc-client-test-invalid-iss", claims={"iss": "https://evil.example"}, reason="iss_mismatch"),
    attack("23", claims={"iss": f"{ISSUER}/"}, reason="iss_mismatch"),
    attack("23", claims={"iss": GONE}, reason="iss_mismatch"),
    attack("23", claims={"iss": [ISSUER]}, reason="iss_mismatch"),
    attack("25", "oidcc-client-test-missing-sub", claims={"sub": GONE}, reason="sub_missing"),
    attack("25", claims={"sub": ""}, reason="sub_malformed"),
    attack("25", claims={"sub": "x" * 256}, reason="sub_malformed"),
    attack("25", claims={"sub": 7}, reason="sub_malformed"),
    attack("25", claims={"sub": None}, reason="sub_malformed"),
    attack("25", claims={"sub": ["alice"]}, reason="sub_malformed"),
    attack("25", claims={"sub": "a\u0000b"}, reason="sub_malformed"),
    attack("25", claims={"sub": "\u0430lice"}, reason="sub_malformed"),
    attack("25", claims={"sub": "\ud800"}, reason="token_json"),
    attack("21", "oidcc-client-test-invalid-aud", claims={"aud": "other"}, reason="aud_mismatch"),
    attack("21", "oidcc-client-test-missing-aud", claims={"aud": GONE}, reason="aud_missing"),
    attack("21", claims={"aud": []}, reason="aud_missing"),
    attack("21", claims={"aud": [7]}, reason="aud_missing"),
    attack("21", claims={"aud": {CLIENT_ID: 1}}, reason="aud_missing"),
    attack("21", claims={"aud": ["other"], "azp": CLIENT_ID}, reason="aud_mismatch"),
    attack("21", claims={"aud": "other", "azp": CLIENT_ID}, reason="aud_mismatch"),
    attack("21", claims={"aud": f"{CLIENT_ID}x"}, reason="aud_mismatch"),
    attack("22", claims={"aud": [CLIENT_ID, "other"]}, reason="azp_mismatch"),
    attack("22", claims={"aud": [CLIENT_ID, "other"], "azp": "other"}, reason="azp_mismatch"),
    attack("22", claims={"azp": "other"}, reason="azp_mismatch"),
    attack("22", claims={"azp": "x" * 300}, reason="azp_mismatch"),
    attack("22", claims={"aud": [CLIENT_ID, "other"], "azp": None}, reason="azp_mismatch"),
    attack("24", "oidcc-client-test-missing-iat", claims={"iat": GONE}, reason="iat_missing"),
    attack("24", claims={"iat": NOW - DAY}, reason="iat_too_old"),
    attack("24", claims={"iat": NOW - 7 * DAY}, reason="iat_too_old"),
    attack("24", claims={"iat": NOW + 61}, reason="iat_in_future"),
    attack("24", claims={"exp": GONE}, reason="exp_missing"),
    attack("24", claims={"exp": NOW - 60}, reason="expired"),
    attack("24", claims={"exp": NOW - 120}, reason="expired"),
    attack("24", claims={"nbf": NOW + 61}, reason="nbf_in_future"),
    attack("25", claims={"exp": str(NOW + 300)}, reason="exp_malformed"),
    attack("25", claims={"exp": True}, reason="exp_malformed"),
    attack("25", claims={"exp": None}, reason="exp_malformed"),
    attack("25", claims={"exp": 10**17}, reason="exp_malformed"),
    attack("25", claims={"iat": "now"}, reason="iat_malformed"),
    attack("17", "oidcc-client-test-nonce-invalid", claims={"nonce": "x" * 43}, reason="nonce_mismatch"),
    attack("17", claims={"nonce": GONE}, reason="nonce_missing"),
    attack("17", claims={"nonce": ""}, reason="nonce_mismatch"),
    attack("17", claims={"nonce": 1}, reason="nonce_missing"),
    attack("26", claims={"events": {}}, reason="events_claim"),
    attack("26", claims={"events": None}, reason="events_claim"),
    attack("30", claims={"at_hash": b64(b"x" * 16)}, reason="at_hash_mismatch"),
    attack("30", claims={"at_hash": "x"}, reason="at_hash_mismatch"),
    attack("25", claims={"auth_time": NOW + 61}, reason="auth_time_in_future"),
]


@pytest.mark.parametrize(("claims", "reason"), BAD_CLAIMS)
async def test_a_bad_claim_is_rejected(world: World, claims: dict[str, Any], reason: str) -> None:
    world.op.claims = claims
    await world.assert_rejected(await world.login(), reason)


@pytest.mark.attack("17")
async def test_a_replayed_nonce_is_rejected(world: World) -> None:
    first = await world.start()
    world.op.claims = {"nonce": dict(httpx2.URL(first).params)["nonce"]}
    await world.assert_rejected(await world.login(), "nonce_mismatch")


BAD_HEADERS = [
    attack("18", "oidcc-client-test-idtoken-sig-none", header={"alg": "none"}, reason="alg_not_allowed"),
    attack("18", header={"alg": "NONE"}, reason="alg_not_allowed"),
    attack("18", header={"alg": ""}, reason="alg_not_allowed"),
    attack("18", header={"alg": GONE}, reason="alg_not_allowed"),
    attack("18", header={"alg": ["RS256"]}, reason="alg_not_allowed"),
    attack("19", header={"alg": "HS256"}, reason="alg_not_allowed"),
    attack("18", header={"alg": "RS384"}, reason="alg_not_allowed"),
    attack("20", header={"crit": ["exp"], "exp": 1}, reason="crit_header"),
    attack("20", header={"crit": ["b64"], "b64": True}, reason="crit_header"),
    attack("20", header={"crit": []}, reason="crit_header"),
    attack("20", header={"b64": False}, reason="crit_header"),
    attack("26", header={"typ": "at+jwt"}, reason="typ_header"),
    attack("26", header={"typ": "application/at+JWT"}, reason="typ_header"),
    attack("26", header={"typ": "logout+jwt"}, reason="typ_header"),
    attack("31", header={"kid": "forged"}, reason="unknown_key"),
]


@pytest.mark.parametrize(("header", "reason"), BAD_HEADERS)
async def test_a_bad_header_is_rejected(world: World, header: dict[str, Any], reason: str) -> None:
    world.op.header = header
    # Correctly signed where a signature exists, so only the header is wrong.
    world.op.forge = lambda given, claims: sign({"alg": "RS256"}, claims, RSA_KEY).replace(
        b64_json({"alg": "RS256"}), b64_json(given)
    )
    if header.get("alg", "RS256") == "RS256":
        world.op.forge = None
    await world.assert_rejected(await world.login(), reason)


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{b64_json({**header, 'alg': 'none'})}.{b64_json(claims)}."


def hs256(key: bytes) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    def forge(header: dict[str, Any], claims: dict[str, Any]) -> str:
        text = f"{b64_json({**header, 'alg': 'HS256'})}.{b64_json(claims)}"
        return f"{text}.{b64(hmac.digest(key, text.encode(), 'sha256'))}"

    return forge


PUBLIC_PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.attack("18")
@pytest.mark.attack("19")
@pytest.mark.attack("oidcc-client-test-invalid-sig-hs256")
@pytest.mark.parametrize("forge", [unsigned, hs256(PUBLIC_PEM), hs256(CLIENT_SECRET.encode()), hs256(b"published-oct-key")])
async def test_a_missing_signature_or_one_by_a_public_secret_is_rejected(world: World, forge: Any) -> None:
    world.op.jwks.append({"kty": "oct", "k": b64(b"published-oct-key"), "kid": "k1", "alg": "HS256"})
    world.op.forge = forge
    await world.assert_rejected(await world.login(), "token_form" if forge is unsigned else "alg_not_allowed")


@pytest.mark.attack("19")
async def test_an_oct_key_is_never_used(world: World) -> None:
    world.op.jwks = [{"kty": "oct", "k": b64(b"published-oct-key"), "kid": "k1"}]
    await world.assert_rejected(await world.login(), "unknown_key")


@pytest.mark.attack("20")
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_a_key_inside_the_token_is_ignored(world: World, name: str) -> None:
    value: Any = {
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/cert",
        "jwk": public_jwk(OTHER_RSA_KEY),
        "x5c": ["MIIB"],
    }[name]
    world.op.header = {name: value}
    world.op.key = OTHER_RSA_KEY
    await world.assert_rejected(await world.login(), "bad_signature")
    assert {call.url.host for call in world.op.calls} == {"op.example"}


@pytest.mark.attack("27")
@pytest.mark.attack("oidcc-client-test-invalid-sig-rs256")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda token: token.rpartition(".")[0] + ".", "token_form"),
        (lambda token: token.rpartition(".")[0], "token_form"),
        (lambda token: token + ".x", "token_form"),
        (lambda token: token[:-20] + ("A" if token[-20] != "A" else "B") + token[-19:], "bad_signature"),
        (lambda token: token + "AAAA", "bad_signature"),
        (lambda token: token[:-2], "bad_signature"),
        (lambda token: token + "=", "token_form"),
        (lambda token: token.replace(".", "..", 1), "token_form"),
        (lambda token: token.replace(token.split(".")[1], b64(b'{"sub":"admin"}')), "bad_signature"),
        (lambda token: token.replace(token.split(".")[1], b64(b"not json")), "token_json"),
        (lambda token: token.replace(token.split(".")[1], b64(b"[1]")), "token_json"),
        (lambda token: token.replace(token.split(".")[0], b64(b'"x"')), "token_json"),
        (lambda _: "x" * 70_000, "token_malformed"),
        (lambda _: ".".join(["e30"] * 5), "token_form"),
        (lambda _: f"{b64_json({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.eA.eA.eA.eA", "encrypted"),
        (lambda _: f"{b64_json({'alg': 'dir', 'enc': 'A256GCM', 'cty': 'JWT'})}..eA.eA.eA", "encrypted"),
    ],
)
async def test_a_damaged_token_is_rejected(world: World, change: Callable[[str], str], reason: str) -> None:
    world.op.forge = lambda header, claims: change(sign(header, claims, RSA_KEY))
    await world.assert_rejected(await world.login(), reason)


async def test_a_signature_with_any_bit_changed_is_rejected(world: World) -> None:
    """Also the unused bits of the last base64 character, so that a token has one spelling."""
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for step in (1, 2, 8, 16, 32):
        world.op.forge = (
            lambda header, claims, step=step: (  # type: ignore[misc]
                (token := sign(header, claims, RSA_KEY))[:-1] + last[last.index(token[-1]) ^ step]
            )
        )
        assert (await world.login()).status_code == 400
    assert set(world.reasons()) == {"token_form", "bad_signature"}


@pytest.mark.attack("27")
@pytest.mark.attack("oidcc-client-test-invalid-sig-es256")
async def test_another_key_with_the_same_kid_is_rejected(world: World) -> None:
    world.op.key = OTHER_RSA_KEY
    await world.assert_rejected(await world.login(), "bad_signature")


@pytest.mark.attack("oidcc-client-test-invalid-sig-es256")
async def test_an_es256_signature_of_zeros_is_rejected(world: World) -> None:
    world.op.alg, world.op.key, world.op.jwks = "ES256", EC_KEY, [public_jwk(EC_KEY, "k1")]
    world.op.forge = lambda header, claims: f"{b64_json(header)}.{b64_json(claims)}.{b64(bytes(64))}"
    await world.assert_rejected(await world.login(), "bad_signature")


@pytest.mark.attack("27")
async def test_a_key_of_the_wrong_type_under_the_right_kid_is_rejected(world: World) -> None:
    world.op.jwks = [public_jwk(EC_KEY, "k1")]
    await world.assert_rejected(await world.login(), "unknown_key")


@pytest.mark.attack("25")
@pytest.mark.parametrize(
    "extra", ['"sub":"admin"', '"aud":"other"', '"x":{"a":1,"a":2}', '"x":NaN', '"x":1e999', '"x":"\\ud800"']
)
async def test_ambiguous_json_is_rejected(world: World, extra: str) -> None:
    world.op.forge = lambda header, claims: sign(header, json.dumps(claims)[:-1] + f",{extra}}}", RSA_KEY)
    await world.assert_rejected(await world.login(), "token_json")


@pytest.mark.attack("25")
async def test_deep_nesting_is_rejected(world: World) -> None:
    world.op.forge = lambda header, claims: sign(header, "[" * 20_000, RSA_KEY)
    await world.assert_rejected(await world.login(), "token_json")


BAD_ANSWERS = [
    attack("28", answer={"id_token": GONE}, reason="id_token_missing"),
    attack("28", answer={"id_token": None}, reason="id_token_missing"),
    attack("28", answer={"id_token": 7}, reason="token_malformed"),
    attack("28", answer={"id_token": ""}, reason="token_malformed"),
    attack("28", answer={"token_type": GONE}, reason="token_type"),
    attack("28", answer={"token_type": "DPoP"}, reason="token_type"),
    attack("28", answer={"token_type": ["Bearer"]}, reason="token_type"),
    attack("28", answer={"access_token": GONE}, reason="access_token_missing"),
    attack("28", answer={"access_token": "a\r\nb: c"}, reason="token_malformed"),
    attack("28", answer={"access_token": "ü"}, reason="token_malformed"),
    attack("28", answer={"access_token": None}, reason="access_token_missing"),
    attack("28", answer={"access_token": ""}, reason="token_malformed"),
    attack("28", answer={"token_type": None}, reason="token_type"),
    attack("28", answer={"error": "invalid_grant"}, reason="invalid_grant"),
]


@pytest.mark.parametrize(("answer", "reason"), BAD_ANSWERS)
async def test_a_bad_token_response_is_rejected(world: World, answer: dict[str, Any], reason: str) -> None:
    world.op.answer = answer
    await world.assert_rejected(await world.login(), reason)


@pytest.mark.parametrize("name", ["expires_in", "scope", "refresh_token", "error"])
async def test_a_malformed_optional_member_of_a_token_response_counts_as_absent(name: str) -> None:
    world = World()
    values: list[Any] = [None, "", -1, True, 10**12, [1], {}, "a b\r\nc: d", ["openid", "profile"], "\u0430"]
    for value in values:
        if name == "error" and isinstance(value, str) and value:
            continue  # an error, although an unusual one
        world.op.answer = {name: value}
        held = await log_in_anew(world, value)
        if name != "error":
            assert getattr(held.tokens, "expires_at" if name == "expires_in" else name) is None, value


@pytest.mark.parametrize("answer", [{"token_type": "bearer"}, {"expires_in": GONE}, {"expires_in": "300"}, {"expires_in": 299.5}])
async def test_valid_token_responses_are_accepted(world: World, answer: dict[str, Any]) -> None:
    world.op.answer = answer
    assert (await world.login()).status_code == 303


@pytest.mark.attack("29")
@pytest.mark.attack("oidcc-client-test-userinfo-invalid-sub")
@pytest.mark.parametrize("sub", ["bob", "", GONE, None, ["alice"], "Alice"])
async def test_userinfo_of_another_user_is_rejected(world: World, sub: object) -> None:
    world.op.userinfo = {"sub": sub}
    await world.assert_rejected(await world.login(), "userinfo_sub_mismatch")


@pytest.mark.attack("oidcc-client-test-userinfo-signed")
@pytest.mark.parametrize(
    ("claims", "key", "alg", "reason"),
    [
        ({"sub": "alice"}, OTHER_RSA_KEY, "RS256", "userinfo_bad_signature"),
        ({"sub": "alice", "aud": "other"}, RSA_KEY, "RS256", "aud_mismatch"),
        ({"sub": "alice", "iss": "https://evil.example"}, RSA_KEY, "RS256", "iss_mismatch"),
        ({"sub": "bob"}, RSA_KEY, "RS256", "userinfo_sub_mismatch"),
    ],
)
async def test_invalid_signed_userinfo_is_rejected(world: World, claims: Any, key: Any, alg: str, reason: str) -> None:
    token = sign({"alg": alg, "kid": "k1"}, claims, key)
    world.op.replies["/userinfo"] = lambda _: httpx2.Response(200, headers={"content-type": "application/jwt"}, text=token)
    await world.assert_rejected(await world.login(), reason)


@pytest.mark.parametrize("name", ["iss", "aud", "azp", "exp", "name"])
async def test_a_malformed_optional_member_of_signed_userinfo_counts_as_absent(name: str) -> None:
    world = World()
    values: list[Any] = [None, "", 7, [], {}, [7], [None], True]
    tokens = [sign({"alg": "RS256", "kid": "k1"}, {"sub": "alice", name: value}, RSA_KEY) for value in values]
    answered = iter(tokens)
    kind = {"content-type": "application/jwt"}
    world.op.replies["/userinfo"] = lambda _: httpx2.Response(200, headers=kind, text=next(answered))
    for value in values:
        assert (await log_in_anew(world, value)).identity.subject == "alice"
    assert next(answered, None) is None


async def test_signed_userinfo_for_us_and_others_needs_no_azp(world: World) -> None:
    token = sign({"alg": "RS256", "kid": "k1"}, {"sub": "alice", "iss": ISSUER, "aud": ["other", CLIENT_ID]}, RSA_KEY)
    world.op.replies["/userinfo"] = lambda _: httpx2.Response(200, headers={"content-type": "application/jwt"}, text=token)
    assert (await world.login()).status_code == 303, world.reasons()


@pytest.mark.attack("18")
async def test_unsigned_userinfo_declared_as_signed_is_rejected(world: World) -> None:
    token = unsigned({}, {"sub": "alice"})
    world.op.replies["/userinfo"] = lambda _: httpx2.Response(200, headers={"content-type": "application/jwt"}, text=token)
    await world.assert_rejected(await world.login(), "token_form")


@pytest.mark.attack("asvs-6.8.4")
@pytest.mark.attack("asvs-7.6.1")
@pytest.mark.parametrize(
    ("params", "claims", "reason"),
    [
        ({"max_age": "60"}, {}, "auth_time_missing"),
        ({"max_age": "60"}, {"auth_time": NOW - 121}, "auth_time_too_old"),
        ({"max_age": "0"}, {"auth_time": NOW - 61}, "auth_time_too_old"),
        ({"acr_values": "high higher"}, {}, "acr_not_met"),
        ({"acr_values": "high higher"}, {"acr": "low"}, "acr_not_met"),
        ({"max_age": "60"}, {"auth_time": NOW - 60}, None),
        ({"acr_values": "high higher"}, {"acr": "higher"}, None),
    ],
)
async def test_a_login_without_the_requested_recency_or_class_is_rejected(
    world: World, params: dict[str, str], claims: dict[str, Any], reason: str | None
) -> None:
    world.op.claims = claims
    response = await world.login(**params)
    if reason is None:
        assert response.status_code == 303
    else:
        await world.assert_rejected(response, reason)


@pytest.mark.attack("18")
@pytest.mark.attack("asvs-9.1.2")
async def test_an_algorithm_outside_the_configured_list_is_rejected(world: World) -> None:
    narrowed = World(provider={"signing_algorithms": ["ES256"]})
    await narrowed.plant()
    await narrowed.assert_rejected(await narrowed.login(), "alg_not_allowed")


def test_the_fake_providers_half_hash_follows_the_specification() -> None:
    """The example of OpenID Connect Core A.3, so that a shared mistake in at_hash is detected."""
    half = hashlib.sha256(b"jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y").digest()[:16]
    assert b64(half) == "77QmUPtjPfzWtF2AnpK9RQ"
