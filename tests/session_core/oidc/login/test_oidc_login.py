"""A successful login: the request to the provider, the stored data, the browser's cookies."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
from litestar import Litestar
from litestar.exceptions import PermissionDeniedException

from session_core import ConfigurationError, Identity, SessionHandle, SessionPlugin
from session_core.errors import SessionCoreError
from session_core.oidc import OidcConfig, OidcPlugin
from session_core.sealing import SealingKeys
from tests.session_core.oidc.fake_op import EC_KEY, ED_KEY, GET_PAGE, GONE, ISSUER, RSA_KEY, World, b64, public_jwk, sign
from tests.support.factories import ProviderFactory
from tests.support.sessions import AppSession, make_config

pytestmark = pytest.mark.anyio


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.attack("oidcc-client-test")
async def test_a_login_link_leads_to_a_session_of_the_user(world: World) -> None:
    response = await world.login(next="/account?tab=1")
    assert (response.status_code, response.headers["location"]) == (303, "/account?tab=1")
    assert await world.subject() == "alice"
    assert [event.name for event in world.events] == ["login.started", "session.created", "login.succeeded"]


@pytest.mark.attack("asvs-10.2.3")
@pytest.mark.attack("15")
async def test_an_authorization_request_has_its_parameters_and_fresh_secrets(world: World) -> None:
    first, second = await world.start(), await world.start()
    assert first.startswith(f"{ISSUER}/authorize?")
    asked = parse_qs(urlsplit(first).query)
    assert {name: asked.pop(name) for name in ("response_type", "client_id", "scope", "redirect_uri")} == {
        "response_type": ["code"],
        "client_id": ["app"],
        "scope": ["openid profile email"],
        "redirect_uri": ["http://127.0.0.1:8000/auth/callback"],
    }
    assert asked.pop("code_challenge_method") == ["S256"]
    assert {name: len(value[0]) for name, value in asked.items()} == {"state": 43, "nonce": 43, "code_challenge": 43}
    again = parse_qs(urlsplit(second).query)
    assert all(again[name] != asked[name] for name in asked)


@pytest.mark.attack("15")
async def test_the_verifier_is_fresh_long_and_never_in_a_url(world: World) -> None:
    await world.login()
    call = next(call for call in world.op.calls if call.url.path == "/token")
    (verifier,) = parse_qs(call.content.decode())["code_verifier"]
    assert len(verifier) >= 43
    assert not any(verifier in str(call.url) for call in world.op.calls)


async def test_login_parameters_are_passed_on(world: World) -> None:
    url = await world.start(max_age="60", acr_values="a b", prompt="login", login_hint="alice@example.org")
    asked = parse_qs(urlsplit(url).query)
    assert (asked["max_age"], asked["acr_values"]) == (["60"], ["a b"])
    assert (asked["prompt"], asked["login_hint"]) == (["login"], ["alice@example.org"])


@pytest.mark.parametrize(
    "query", ["max_age=-1", "max_age=x", "max_age=1e3", "max_age=1&max_age=2", "prompt=x", "login_hint=%00", "acr_values=%0d%0aa",
              "max_age=٣", "next=%ff"],
)  # fmt: skip
async def test_invalid_login_parameters_are_refused(world: World, query: str) -> None:
    response = await world.browser.get(f"/auth/login?{query}", headers=GET_PAGE)
    assert response.status_code == 400
    assert "set-cookie" not in response.headers


@pytest.mark.attack("oidcc-client-test-3rd-party-init-login")
@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("http://127.0.0.1:8000/account", "/account"),
        ("https://evil.example/account", "/"),
        ("http://127.0.0.1:8000.evil.example/", "/"),
        ("http://127.0.0.1:8000//evil.example/", "/"),
        ("", "/"),
    ],
)
async def test_a_login_initiated_by_a_third_party_succeeds(world: World, target: str, location: str) -> None:
    assert (await world.login(iss=ISSUER, target_link_uri=target)).headers["location"] == location
    refused = await world.browser.get("/auth/login", params={"iss": "https://evil.example"}, headers=GET_PAGE)
    assert refused.status_code == 400


async def test_the_routes_are_in_the_openapi_document(world: World) -> None:
    schema = Litestar(
        plugins=[SessionPlugin(make_config(public_url=world.public_url)), OidcPlugin(world.oidc.config)]
    ).openapi_schema.to_schema()
    assert set(schema["paths"]) == {
        "/auth/login",
        "/auth/callback",
        "/auth/logout",
        "/auth/session",
        "/auth/backchannel-logout",
        "/auth/frontchannel-logout",
    }
    assert "relying_party" not in repr(schema)


async def test_an_external_url_as_next_is_ignored(world: World) -> None:
    assert (await world.login(next="https://evil.example/")).headers["location"] == "/"


@pytest.mark.parametrize("seconds", [0, 700, 3500])
async def test_try_again_after_a_cancelled_or_expired_login_leads_to_the_page(seconds: int, world: World) -> None:
    target = "/read?filter%5Ba%5D=1&name=%E2%9C%93"
    callback = httpx.URL(world.op.authorize(await world.start(next=target)))
    if not seconds:
        callback = callback.copy_remove_param("code").copy_add_param("error", "access_denied")
    world.clock.advance(seconds=seconds)
    failed = await world.come_back(str(callback))
    assert failed.status_code == 400
    (again,) = re.findall(r'<a href="([^"]+)">Try again</a>', failed.text)
    leading = await world.browser.get(html.unescape(again), headers=GET_PAGE)
    assert (await world.come_back(world.op.authorize(leading.headers["location"]))).headers["location"] == target


@pytest.mark.parametrize("length", [1023, 1024, 1025, 1500, 2048])
async def test_a_long_next_survives_the_login(world: World, length: int) -> None:
    page = "/" + "a" * (length - 1)
    assert (await world.login(next=page)).headers["location"] == page


@pytest.mark.attack("74")
@pytest.mark.parametrize("length", [1, 300, 1024, 2048])
async def test_all_login_cookies_together_have_at_most_4_kb(world: World, length: int) -> None:
    urls = [await world.start(next="/" + "a" * (length - 1)) for _ in range(12)]
    cookies = {name: value for name, value in world.browser.cookies.items() if "login" in name or "sign-in" in name}
    assert sum(len(name) + len(value) + 3 for name, value in cookies.items()) <= 4096
    assert len(cookies) >= min(10, 4096 // (length * 2 + 400))
    # The newest logins stay open.
    assert (await world.come_back(world.op.authorize(urls[-1]))).status_code == 303


class TestBackToTheProvider:
    async def test_a_second_response_with_another_code_continues_to_the_page(self, world: World) -> None:
        started = await world.start(next="/account?tab=2")
        assert (await world.come_back(world.op.authorize(started))).status_code == 303
        session = world.browser.cookies.get("session-8000")
        again = await world.come_back(world.op.authorize(started))
        assert (again.status_code, again.headers["location"]) == (303, "/account?tab=2")
        assert world.browser.cookies.get("session-8000") == session
        assert world.op.count("/token") == 1

    async def test_cancelling_there_continues_to_the_page(self, world: World) -> None:
        started = await world.start(next="/account?tab=2")
        callback = httpx.URL(world.op.authorize(started))
        assert (await world.come_back(str(callback))).status_code == 303
        session = world.browser.cookies.get("session-8000")
        cancelled = str(callback.copy_remove_param("code").copy_add_param("error", "access_denied"))
        again = await world.come_back(cancelled)
        assert (again.status_code, again.headers["location"]) == (303, "/account?tab=2")
        assert world.browser.cookies.get("session-8000") == session
        world.browser.cookies.delete("session-8000")
        assert (await world.come_back(cancelled)).status_code == 400

    async def test_a_response_with_neither_code_nor_error_is_rejected(self, world: World) -> None:
        callback = httpx.URL(world.op.authorize(await world.start()))
        assert (await world.come_back(str(callback))).status_code == 303
        assert (await world.come_back(str(callback.copy_remove_param("code")))).status_code == 400

    async def test_the_same_code_again_is_rejected_as_a_replay(self, world: World) -> None:
        url = world.op.authorize(await world.start())
        await world.come_back(url)
        assert (await world.come_back(url)).status_code == 400

    async def test_a_second_response_without_the_session_is_rejected(self, world: World) -> None:
        started = await world.start()
        await world.come_back(world.op.authorize(started))
        world.browser.cookies.delete("session-8000")
        assert (await world.come_back(world.op.authorize(started))).status_code == 400

    async def test_a_second_response_after_ten_minutes_is_rejected(self, world: World) -> None:
        started = await world.start()
        await world.come_back(world.op.authorize(started))
        world.clock.advance(seconds=601)
        assert (await world.come_back(world.op.authorize(started))).status_code == 400


@pytest.mark.attack("72")
@pytest.mark.parametrize("purpose", ["prefetch", "prefetch;prerender"])
async def test_a_prefetch_does_not_consume_the_code(world: World, purpose: str) -> None:
    url = world.op.authorize(await world.start())
    response = await world.browser.get(url, headers={**GET_PAGE, "sec-purpose": purpose})
    assert response.status_code == 403
    assert world.op.count("/token") == 0
    assert (await world.come_back(url)).status_code == 303


@pytest.mark.attack("asvs-3.3.2")
@pytest.mark.attack("asvs-3.3.4")
async def test_the_transaction_cookie_is_restricted(world: World) -> None:
    response = await world.browser.get("/auth/login", headers=GET_PAGE)
    (cookie,) = response.headers.get_list("set-cookie")
    name, _, rest = cookie.partition("=")
    assert name.startswith("login-8000-")
    assert len(name) == len("login-8000-") + 8
    assert rest.partition("; ")[2] == "Max-Age=3600; Path=/; HttpOnly; SameSite=Lax"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.attack("asvs-3.3.1")
@pytest.mark.attack("asvs-3.3.3")
async def test_the_transaction_cookie_is_secure_on_https() -> None:
    world = World(public_url="https://app.example.org")
    response = await world.browser.get("/auth/login", headers=GET_PAGE)
    (cookie,) = response.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-login-")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert (await world.login()).status_code == 303


async def test_the_callback_deletes_the_transaction_cookie(world: World) -> None:
    response = await world.login()
    deleted = [cookie for cookie in response.headers.get_list("set-cookie") if cookie.startswith("login-8000-")]
    assert len(deleted) == 1
    assert "Max-Age=0" in deleted[0]
    assert not [name for name in world.browser.cookies if name.startswith("login-8000-")]


@pytest.mark.attack("38")
async def test_a_session_planted_before_the_login_is_replaced(world: World) -> None:
    await world.plant()
    await world.login()
    state = (await world.browser.get("/read")).json()
    assert (state["subject"], state["data"]["note"]) == ("alice", "before")
    async with world.new_browser(cookies={"session-8000": world.planted}) as attacker:
        assert await world.subject(attacker) is None


async def test_the_identity_comes_from_the_verified_claims(world: World) -> None:
    now = world.clock.now() // 1000
    world.op.claims = {"auth_time": now - 9, "acr": "strong", "amr": ["pwd", "otp"]}
    await world.login()
    (event,) = [event for event in world.events if event.name == "login.succeeded"]
    assert event.identity == Identity(
        issuer=ISSUER, subject="alice", sid="op-session-1", auth_time=now - 9, acr="strong", amr=("pwd", "otp")
    )


@pytest.mark.attack("asvs-7.6.1")
async def test_without_auth_time_a_login_is_not_recent(world: World) -> None:
    await world.login()
    (event,) = [event for event in world.events if event.name == "login.succeeded"]
    assert event.identity
    assert event.identity.auth_time is None


@pytest.mark.attack("oidcc-client-test-scope-userinfo-claims")
async def test_the_hook_maps_users_from_all_claims() -> None:
    seen: dict[str, Any] = {}

    async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> Any:
        seen.update(claims, was=session.identity)

        def change(data: AppSession) -> None:
            data.roles = ["user"]

        return change

    world = World(on_login=on_login)
    world.op.userinfo = {"email": "a@example.org", "iss": "https://other.example"}
    await world.login()
    assert (seen["name"], seen["email"], seen["was"]) == ("Alice", "a@example.org", None)
    assert seen["iss"] == ISSUER
    assert (await world.browser.get("/read")).json()["data"]["roles"] == ["user"]
    # Another user in the same browser: the new session contains the new user's data only.
    world.op.subject = "bob"
    await world.login()
    state = (await world.browser.get("/read")).json()
    assert (state["subject"], state["data"]["roles"]) == ("bob", ["user"])


@pytest.mark.parametrize("value", [None, "", [], {}], ids=repr)
async def test_a_claim_that_the_id_token_has_without_a_value_comes_from_userinfo(value: Any) -> None:
    seen: dict[str, Any] = {}

    async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> None:
        seen.update(claims)

    world = World(on_login=on_login)
    world.op.claims = {"email": value, "locale": value, "verified": False, "level": 0, "name": "Alice of the token"}
    world.op.userinfo = {"email": "a@example.org", "verified": True, "level": 3}
    assert (await world.login()).status_code == 303
    assert (seen["email"], seen["locale"]) == ("a@example.org", value)
    assert (seen["verified"], seen["level"], seen["name"]) == (False, 0, "Alice of the token")


async def test_the_hook_can_refuse_a_login() -> None:
    async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> None:
        raise PermissionDeniedException

    world = World(on_login=on_login)
    await world.plant()
    response = await world.login()
    assert response.status_code == 403
    await world.assert_rejected(response, "refused_by_application")
    # Everything was checked before, so the event can name the user.
    assert [event.identity.subject for event in world.events if event.name == "login.failed" and event.identity] == ["alice"]
    world.op.claims = {"nonce": "another"}
    await world.login()
    assert [event.identity is None for event in world.events if event.name == "login.failed"] == [False, True]


class DirectoryDownError(SessionCoreError):
    code = "directory_down"
    status_code = 503


@pytest.mark.parametrize(
    ("raised", "status", "reason"),
    [(DirectoryDownError, 503, "directory_down"), (ConnectionRefusedError, 500, "application_failed")],
)
async def test_a_failure_of_the_hook_is_not_reported_as_a_refusal(raised: type[Exception], status: int, reason: str) -> None:
    async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> None:
        raise raised

    world = World(on_login=on_login)
    await world.plant()
    response = await world.login()
    assert response.status_code == status
    await world.assert_rejected(response, reason)


@pytest.mark.parametrize("wrong", ["raises", "type"])
async def test_data_of_the_hook_is_stored_with_the_login_or_the_login_fails(wrong: str) -> None:
    async def on_login(identity: Identity, claims: Mapping[str, Any], session: SessionHandle[Any]) -> Any:
        def change(data: AppSession) -> None:
            if wrong == "raises":
                raise PermissionDeniedException
            data.roles = 7  # type: ignore[assignment]

        return change

    world = World(on_login=on_login)
    await world.plant()
    response = await world.login()
    assert response.status_code == (403 if wrong == "raises" else 500)
    await world.assert_rejected(response, "refused_by_application" if wrong == "raises" else "session_data")
    assert world.reasons("login.succeeded") == world.reasons("session.created")[1:] == []


@pytest.mark.attack("oidcc-client-test-idtoken-sig-rs256")
@pytest.mark.parametrize(
    ("alg", "key"), [("RS256", RSA_KEY), ("PS256", RSA_KEY), ("ES256", EC_KEY), ("EdDSA", ED_KEY), ("Ed25519", ED_KEY)]
)
async def test_supported_signature_algorithms_are_accepted(world: World, alg: str, key: Any) -> None:
    world.op.metadata = {"id_token_signing_alg_values_supported": [alg]}
    world.op.alg, world.op.key, world.op.jwks = alg, key, [public_jwk(key, "k1", alg=alg)]
    # Ed25519 uses a SHA-512 hash of the access token; at_hash is optional in this flow.
    world.op.claims = {"at_hash": GONE} if key is ED_KEY else {}
    assert (await world.login()).status_code == 303, world.reasons()


@pytest.mark.attack("oidcc-client-test-userinfo-signed")
async def test_signed_userinfo_is_accepted(world: World) -> None:
    claims = {"iss": ISSUER, "aud": "app", "sub": "alice"}
    tokens = [world.op.signed(claims), sign({"alg": "RS256", "kid": "k1"}, claims, world.op.key)]
    world.op.replies["/userinfo"] = lambda _: httpx2.Response(200, headers={"content-type": "application/jwt"}, text=tokens.pop())
    assert (await world.login()).status_code == 303
    assert (await world.login()).status_code == 303


async def test_a_provider_without_userinfo_is_supported(world: World) -> None:
    world.op.metadata = {"userinfo_endpoint": GONE}
    assert (await world.login()).status_code == 303
    assert world.op.count("/userinfo") == 0


async def test_post_authentication_and_public_clients_are_supported(world: World) -> None:
    for method, secret in (("client_secret_post", "s3cret"), ("none", None)):
        other = World(provider={"token_endpoint_auth_method": method, "client_secret": secret})
        seen: list[Any] = []
        other.op.replies["/token"] = lambda request, seen=seen: seen.append(request)  # type: ignore[misc,return-value]
        await other.login()
        form = parse_qs(seen[0].content.decode())
        assert form["client_id"] == ["app"]
        assert form.get("client_secret") == ([secret] if secret else None)
        assert "authorization" not in seen[0].headers


@pytest.mark.attack("asvs-14.2.4")
async def test_tokens_are_sealed_in_the_store(world: World) -> None:
    await world.login()
    stored = [session async for session in world.sessions.store.scan()]
    (record,) = [session.entry.data for session in stored]
    assert b"at-1" not in record
    assert b"eyJ" not in record
    assert b64(b"at-1").encode() not in record


async def test_reprs_and_events_contain_no_secret(world: World) -> None:
    await world.login()
    shown = repr(world.oidc.config) + repr(world.oidc.config.providers[0]) + repr(world.events)
    assert "s3cret" not in shown
    assert "at-1" not in shown


class TestConfiguration:
    @pytest.mark.parametrize(
        "change",
        [
            {"issuer": "http://op.example"},
            {"issuer": "http://127.0.0.1:9000"},
            {"issuer": "https://op.example?x=1"},
            {"issuer": "https://user@op.example"},
            {"issuer": "http://op.example", "allow_http": True},
            {"client_id": ""},
            {"client_secret": None},
            {"token_endpoint_auth_method": "none"},
            {"scopes": ["profile"]},
            {"scopes": ["openid profile"]},
            {"signing_algorithms": ["HS256"]},
            {"signing_algorithms": ["none"]},
            {"authorization_params": {"redirect_uri": "https://evil.example"}},
            {"id": "Not OK"},
        ],
    )
    def test_an_invalid_provider_is_refused_at_start(self, change: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            ProviderFactory.build(**change)

    def test_http_on_loopback_is_accepted_when_allowed(self) -> None:
        assert ProviderFactory.build(issuer="http://127.0.0.1:9000", allow_http=True)

    @pytest.mark.parametrize(
        "change",
        [
            {"providers": []},
            {"public_url": "app.example"},
            {"public_url": "https://app.example/pa th"},
            {"public_url": "https://app.example/../a"},
            {"public_url": "https://app.example/a//b"},
            {"public_url": "https://app.example/a?b"},
            {"public_url": "https://app.example/#a"},
            {"public_url": "https://app.example/%61"},
            {"http_timeout_seconds": 0},
            {"post_logout_path": "//evil.example"},
            {"post_logout_path": "https://evil.example"},
        ],
    )
    def test_an_invalid_configuration_is_refused_at_start(self, change: dict[str, Any]) -> None:
        given = {
            "providers": [ProviderFactory.build()],
            "public_url": "http://127.0.0.1:8000",
            "sealing": SealingKeys([b"k" * 32]),
        }
        OidcConfig(**given)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError):
            OidcConfig(**{**given, **change})

    def test_a_session_plugin_of_the_same_site_is_required(self) -> None:
        plugin = OidcPlugin(
            OidcConfig(providers=[ProviderFactory.build()], public_url="http://127.0.0.1:8000", sealing=SealingKeys([b"k" * 32]))
        )
        with pytest.raises(ConfigurationError):
            Litestar(plugins=[plugin])
        with pytest.raises(ConfigurationError):
            Litestar(plugins=[SessionPlugin(make_config(public_url="http://localhost:8000")), plugin])
        with pytest.raises(ConfigurationError, match="same public_url"):
            Litestar(plugins=[SessionPlugin(make_config(public_url="http://127.0.0.1:8000/shop")), plugin])
