"""The login of a native client by browser, one-time code and token, and attacks on each step."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from session_core import ConfigurationError, Identity, SessionHandle
from session_core.errors import LoginRefusedError
from session_core.oidc import NativeClient, OidcConfig
from session_core.sealing import SealingKeys
from session_core.sessions.notes import is_note
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, World
from tests.session_core.oidc.native_client import CLIENTS, JSON, LOOPBACK, Native, ask, subject, world_of
from tests.session_core.oidc.plain_op import PlainOp, plain_provider
from tests.support.factories import ProviderFactory
from tests.support.form_fields import Fields
from tests.support.lost_answers import Fault, LosingStore
from tests.support.sessions import AppSession

pytestmark = pytest.mark.anyio

ALICE = Identity(issuer=ISSUER, subject="alice")


@pytest.fixture
async def world() -> World:
    return world_of()


async def stored(world: World) -> list[Any]:
    return [each async for each in world.sessions.store.scan() if not is_note(each.entry.data)]


async def test_a_native_client_gets_a_token_for_its_own_session(world: World) -> None:
    native = Native(world)
    response = await native.redeem(await native.code())
    answer = response.json()
    assert (response.status_code, answer["token_type"], answer["expires_in"]) == (200, "Bearer", 86400)
    assert (response.headers["session-token"], response.headers["pragma"]) == (answer["access_token"], "no-cache")
    assert await subject(world, answer["access_token"]) == "alice"
    assert await world.subject() is None  # the browser's session is unchanged
    assert len(await stored(world)) == 1
    shown = (await ask(world, "/auth/session", answer["access_token"])).json()
    assert (shown["subject"], shown["authenticated"]) == ("alice", True)


@pytest.mark.parametrize(
    ("client_id", "redirect_uri"),
    [
        ("desktop", "http://127.0.0.1:1/callback"),
        ("desktop", "http://127.0.0.1:65535/callback"),
        ("desktop", "http://[::1]:8080/callback"),
        ("desktop", "http://127.0.0.1/callback"),
        ("mobile", "com.example.app:/login"),
        ("mobile", "https://app.example.com/login"),
    ],
)
async def test_each_kind_of_redirect_uri_works(world: World, client_id: str, redirect_uri: str) -> None:
    assert await subject(world, await Native(world, client_id=client_id, redirect_uri=redirect_uri).token()) == "alice"


async def test_another_users_session_in_the_browser_is_unchanged(world: World) -> None:
    world.op.subject = "carol"
    await world.login()
    world.op.subject = "alice"
    token = await Native(world).token()
    assert (await world.subject(), await subject(world, token)) == ("carol", "alice")


async def test_the_on_login_hook_gets_the_claims_and_fills_the_session() -> None:
    seen: list[Any] = []

    async def on_login(identity: Identity, claims: Any, session: SessionHandle[AppSession]) -> Any:
        seen.append((identity.subject, claims["name"], session.data.note))

        def change(data: AppSession) -> None:
            data.note = "from the hook"

        return change

    world = world_of(on_login=on_login)
    token = await Native(world).token()
    assert seen == [("alice", "Alice", "")]
    assert (await ask(world, "/read", token)).json()["data"]["note"] == "from the hook"


async def test_a_user_refused_by_the_hook_gets_no_token() -> None:
    async def on_login(identity: Identity, claims: Any, session: SessionHandle[AppSession]) -> Any:
        reason = "not_invited"
        raise LoginRefusedError(reason)

    world = world_of(on_login=on_login)
    response = await (native := Native(world)).redeem(await native.code())
    assert (response.status_code, response.json()) == (400, {"error": "invalid_grant"})
    assert world.reasons() == ["not_invited"]
    assert await stored(world) == []


async def test_logout_by_token_ends_the_session_and_returns_the_providers_logout_url(world: World) -> None:
    token = await Native(world).token()
    response = await ask(world, "/auth/logout", token, "POST", headers={"accept": "*/*"})
    assert response.json()["logout_url"].startswith(f"{ISSUER}/end?")
    assert "clear-site-data" not in response.headers
    assert await subject(world, token) is None
    assert (await ask(world, "/auth/logout", token, "POST")).status_code == 401


async def test_the_providers_logout_ends_the_session(world: World) -> None:
    token = await Native(world).token()
    assert (await world.send_logout(world.op.logout_token())).status_code == 200
    assert await subject(world, token) is None


async def go_on(world: World, left: httpx.Response) -> httpx.Response:
    """Follow the provider's redirect to the callback; return the response."""
    headers = {**GET_PAGE, "sec-fetch-site": "cross-site", "accept": "*/*"}
    return await world.browser.get(world.op.authorize(left.headers["location"]), headers=headers)


async def revoke_as(world: World, how: str) -> None:
    sessions = world.sessions.sessions
    if how == "one of the user's":
        await sessions.revoke((await sessions.list_for(ALICE))[0].handle, identity=ALICE)
    elif how == "one of any user":
        await sessions.revoke_any((await sessions.list_for(ALICE))[0].handle)
    elif how == "all":
        await sessions.revoke_all(ALICE)
    elif how == "the limit":
        world.sessions.lifecycle._limits._limit = 1
        await world.login(world.new_browser())
        world.sessions.lifecycle._limits._limit = 0
    else:
        await sessions.revoke_before(world.clock.now() + 1)


@pytest.mark.attack("73")
@pytest.mark.parametrize("auth_time", [None, -600, 0])
@pytest.mark.parametrize("how", ["one of the user's", "one of any user", "all", "from before a moment", "the limit"])
async def test_after_a_revocation_single_sign_on_is_not_enough(world: World, how: str, auth_time: int | None) -> None:
    def now() -> int:
        return world.clock.now() // 1000

    world.op.auth_time = None if auth_time is None else now() + auth_time
    token = await Native(world).token()
    await revoke_as(world, how)
    assert await subject(world, token) is None
    for _ in range(2):  # the mark of the revocation also applies to the user's other clients
        world.clock.advance(seconds=400)
        native = Native(world)
        again = await go_on(world, await native.agree())
        asked = dict(parse_qsl(urlsplit(again.headers["location"]).query))
        assert (again.status_code, asked["prompt"], asked["max_age"]) == (303, "login", "60")
        # Single sign-on again, by a provider that ignores both.
        assert "error=server_error" in (await go_on(world, again)).headers["location"]
        again = await go_on(world, await native.agree())
        kept, world.op.auth_time = world.op.auth_time, now()
        back = dict(parse_qsl(urlsplit((await go_on(world, again)).headers["location"]).query))
        assert (await native.redeem(back["code"])).status_code == 200
        world.op.auth_time = kept
    world.op.auth_time = now()
    assert (await Native(world).token()) != token  # newer than the revocation
    world.op.auth_time = None
    world.clock.advance(seconds=30 * 86_400)
    assert (await Native(world).token()) != token


@pytest.mark.attack("73")
@pytest.mark.parametrize("how", ["one of the user's", "one of any user", "all"])
async def test_a_code_from_before_a_revocation_gives_no_token(world: World, how: str) -> None:
    await Native(world).token()
    code = await (native := Native(world)).code()
    world.clock.advance(seconds=10)
    await revoke_as(world, how)
    assert (await native.redeem(code)).json() == {"error": "invalid_grant"}
    assert world.reasons() == ["code_older_than_revocation"]
    assert await world.sessions.sessions.list_for(ALICE) == []
    world.clock.advance(seconds=10)
    world.op.auth_time = world.clock.now() // 1000
    again = await go_on(world, await go_on(world, await native.agree()))
    later = dict(parse_qsl(urlsplit(again.headers["location"]).query))["code"]
    assert (await native.redeem(later)).status_code == 200


@pytest.mark.attack("73")
async def test_a_revocation_while_a_code_is_redeemed_is_not_undone() -> None:
    async def on_login(identity: Identity, claims: Any, session: SessionHandle[AppSession]) -> None:
        if world.clock.now() > issued:
            await revoke_as(world, "all")

    world = world_of(on_login=on_login)
    issued = world.clock.now()
    await Native(world).token()
    code = await (native := Native(world)).code()
    world.clock.advance(seconds=1)
    response = await native.redeem(code)
    assert (response.json(), "session-token" in response.headers) == ({"error": "invalid_grant"}, False)
    assert world.reasons() == ["code_older_than_revocation"]
    assert await world.sessions.sessions.list_for(ALICE) == []


HINTS = {"login_hint": "alice@example.org", "ui_locales": "de en", "organization": "org-1"}
LONG = dict.fromkeys(("login_hint", "screen_hint", "realm"), "😀" * 256) | {"state": "s" * 512}
"""More than a cookie holds."""


@pytest.mark.parametrize(("given", "repeated"), [(HINTS, HINTS), ({**HINTS, **LONG}, {})])
async def test_the_second_request_for_authentication_repeats_the_hints_of_the_link(
    given: dict[str, str], repeated: dict[str, str]
) -> None:
    world = world_of(provider={"link_params": ("organization", "screen_hint", "realm")})
    world.op.auth_time = world.clock.now() // 1000
    await world.sessions.sessions.revoke_all(ALICE)
    left = await Native(world, max_age="300", **given).agree()
    first = dict(parse_qsl(urlsplit(left.headers["location"]).query))
    second = await go_on(world, left)
    asked = dict(parse_qsl(urlsplit(second.headers["location"]).query))
    for sent, wanted in ((first, {**given, "max_age": "300"}), (asked, {**repeated, "prompt": "login", "max_age": "60"})):
        names = {*HINTS, *LONG, "prompt", "max_age"} - {"state"}
        assert {name: sent[name] for name in names if name in sent} == {name: wanted[name] for name in names if name in wanted}
    world.clock.advance(seconds=10)
    world.op.auth_time = world.clock.now() // 1000
    assert "?code=" in (await go_on(world, second)).headers["location"]


@pytest.mark.parametrize("native", [True, False])
async def test_the_limit_notes_the_user_once_and_only_for_native_clients(native: bool) -> None:
    world = world_of(config={"max_sessions_per_user": 2}, native_clients=CLIENTS if native else ())
    notes = []
    for _ in range(4):
        await world.login(world.new_browser())
        notes.append([is_note(each.entry.data) async for each in world.sessions.store.scan()].count(True))
    assert notes == ([0, 0, 1, 1] if native else [0] * 4)


@pytest.mark.attack("73")
async def losing_world() -> tuple[World, LosingStore, Native, str]:
    store = LosingStore(clock=(clock := FakeClock()))
    world = world_of(store=store, clock=clock)
    native = Native(world)
    code = await native.code()
    store.calls.clear()
    return world, store, native, code


@pytest.mark.attack("73")
@pytest.mark.parametrize("fault", ["applied", "not applied", "applied later"])
async def test_a_redemption_that_an_outage_interrupts_gives_no_token(fault: Fault) -> None:
    """At each store call. The last one looks for a revocation: without its answer the session may be of before it."""
    _, store, native, code = await losing_world()
    assert (await native.redeem(code)).status_code == 200
    names = list(store.calls)
    assert names[-1] == "load"
    for number, name in enumerate(names):
        world, store, native, code = await losing_world()
        store.fail(name, fault, after=names[:number].count(name))
        failed = await native.redeem(code)
        store.recover()
        await store.apply_what_is_late()
        assert (failed.status_code, "session-token" in failed.headers) == (503, False)
        again = await native.redeem(code)
        if again.status_code == 200:
            assert await subject(world, again.json()["access_token"]) == "alice"
        else:
            assert (again.status_code, again.json(), await stored(world)) == (400, {"error": "invalid_grant"}, [])


async def test_a_silent_login_after_a_revocation_is_refused_to_the_client(world: World) -> None:
    await Native(world).token()
    await world.sessions.sessions.revoke_all(ALICE)
    assert await Native(world, prompt="none").answer() == {"error": "login_required"}


async def test_another_users_revocation_and_the_providers_logout_ask_for_nothing(world: World) -> None:
    await Native(world).token()
    await world.sessions.sessions.revoke_all(Identity(issuer=ISSUER, subject="bob"))
    await world.send_logout(world.op.logout_token())
    world.clock.advance(seconds=1)
    assert await subject(world, await Native(world).token()) == "alice"


async def test_a_login_that_the_provider_ended_meanwhile_gives_no_token(world: World) -> None:
    code = await (native := Native(world)).code()
    await world.send_logout(world.op.logout_token())
    assert (await native.redeem(code)).json() == {"error": "invalid_grant"}
    assert await stored(world) == []


async def test_the_page_offers_several_providers() -> None:
    world = world_of(beside=lambda _: [(plain_provider(), PlainOp())])
    page = Fields((await Native(world).ask()).text)
    assert page.buttons == ["default", "git"]
    assert Fields((await Native(world, provider="git").ask()).text).buttons == ["git"]
    assert (await Native(world, provider="unknown").ask()).headers["location"].startswith(f"{LOOPBACK}?error=invalid_request")


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"error": "access_denied", "code": None}, "access_denied"),
        ({"error": "<b>", "code": None}, "server_error"),
        ({"iss": "x"}, "server_error"),
    ],
)
async def test_a_failed_login_is_reported_to_the_client_without_details(world: World, params: Any, error: str) -> None:
    world.op.response_params = params
    assert await Native(world).answer() == {"error": error}
    assert await stored(world) == []


async def test_a_login_that_cannot_start_is_reported_to_the_client(world: World) -> None:
    await world.login()
    for session in [each async for each in world.sessions.sessions.all()]:
        await world.sessions.sessions.revoke_any(session.handle)
    left = await Native(world, prompt="none").agree()
    assert left.headers["location"] == f"{LOOPBACK}?error=invalid_request&state=native%20state"
    assert world.reasons() == ["reauthentication_required"]


async def test_a_form_without_a_provider_is_reported_to_the_client() -> None:
    world = world_of(beside=lambda _: [(plain_provider(), PlainOp())])
    given = {**GET_PAGE, "sec-fetch-site": "same-origin", "accept": "*/*"}
    left = await world.browser.post("/auth/authorize", data=Native(world).params, headers=given)
    assert left.headers["location"] == f"{LOOPBACK}?error=invalid_request&state=native%20state"
    assert world.reasons() == ["provider_not_chosen"]


async def test_a_browser_is_sent_back_by_a_page(world: World) -> None:
    """`form-action` of the provider's page would block a redirect."""
    native = Native(world)
    left = await native.agree()
    back = await world.come_back(world.op.authorize(left.headers["location"]))
    assert back.status_code == 303
    headers = {**GET_PAGE, "sec-fetch-site": "cross-site", "accept": "text/html,application/xhtml+xml"}
    page = await world.browser.get(world.op.authorize((await native.agree()).headers["location"]), headers=headers)
    assert (page.status_code, f'content="0;url={LOOPBACK}?code=' in page.text) == (200, True)
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["content-security-policy"].startswith("sandbox ")
    assert "allow-same-origin" not in page.headers["content-security-policy"]


@pytest.mark.attack("91")
async def test_an_intercepted_code_is_useless_and_stays_valid_for_its_client(world: World) -> None:
    native = Native(world)
    code = await native.code()
    for wrong in (
        "x" * 43,
        native.verifier[:-1] + "!",
        native.params["code_challenge"],
        native.verifier.swapcase(),
        None,
        "",
        "a" * 129,
    ):
        response = await native.redeem(code, code_verifier=wrong)
        assert response.status_code == 400
        assert response.json()["error"] in {"invalid_grant", "invalid_request"}
    for changed in (
        {"client_id": "mobile"},
        {"redirect_uri": "http://127.0.0.1:51005/callback"},
        {"redirect_uri": ""},
        {"client_id": None},
    ):
        assert (await native.redeem(code, **changed)).status_code == 400
    other = Native(world)
    assert (await other.redeem(code)).json() == {"error": "invalid_grant"}
    assert (await native.redeem(code)).status_code == 200


@pytest.mark.attack("91")
async def test_a_code_is_accepted_nowhere_else(world: World) -> None:
    code = await Native(world).code()
    assert await subject(world, code) is None
    async with world.new_browser() as client:
        assert (await client.get("/read", headers={"cookie": f"session-8000={code}"})).json()["exists"] is False
    [kept] = await stored(world)
    for text in (b"alice", b"at-", code.encode()):
        assert text not in kept.entry.data


@pytest.mark.attack("92")
async def test_a_repeated_code_is_refused_and_ends_its_session(world: World) -> None:
    native = Native(world)
    code = await native.code()
    token = (await native.redeem(code)).json()["access_token"]
    assert (await native.redeem(code, code_verifier="w" * 43)).json() == {"error": "invalid_grant"}
    assert await subject(world, token) == "alice"  # a request without the verifier must not end it
    assert (await native.redeem(code)).json() == {"error": "invalid_grant"}
    assert await subject(world, token) is None


@pytest.mark.attack("92")
async def test_a_code_expires_after_a_minute(world: World) -> None:
    native = Native(world)
    codes = [await native.code() for _ in range(2)]
    world.clock.advance(seconds=59)
    assert (await native.redeem(codes[0])).status_code == 200
    world.clock.advance(seconds=2)
    assert (await native.redeem(codes[1])).json() == {"error": "invalid_grant"}


@pytest.mark.attack("94")
@pytest.mark.parametrize(
    "params",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": "s256"},
        {"code_challenge": ""},
        {"code_challenge": "x" * 42},
        {"code_challenge": "x" * 42 + "="},
        {"code_challenge": "x" * 44},
    ],
)
async def test_a_login_without_pkce_is_refused_before_it_starts(world: World, params: dict[str, str | None]) -> None:
    native = Native(world, **params)
    refused = await native.ask()
    assert refused.headers["location"] == f"{LOOPBACK}?error=invalid_request&state=native%20state"
    assert world.reasons() == ["pkce_missing"]
    # Also when the form is submitted directly.
    posted = await world.browser.post("/auth/authorize", data=native.params, headers={"sec-fetch-site": "same-origin"})
    assert posted.headers["location"].startswith(f"{LOOPBACK}?error=invalid_request")
    assert world.op.calls == []


UNREGISTERED = [
    "", "http://127.0.0.1:51004/", "http://127.0.0.1:51004/callback/", "http://127.0.0.1:51004/callback?a=b",
    "http://127.0.0.1:51004/callback#a", "http://127.0.0.1:51004/Callback", "http://127.0.0.1:51004/x/../callback",
    "http://127.0.0.1:51004/%63allback", "http://127.0.0.1:51004@evil.example/callback", "http://evil@127.0.0.1:51004/callback",
    "http://127.0.0.1.evil.example:51004/callback", "http://127.0.0.1:51004\\@evil.example/callback", "http://127.0.0.1:/callback",
    "http://127.0.0.1:0/callback", "http://127.0.0.1:65536/callback", "http://127.0.0.1:051004/callback",
    "http://127.0.0.1:99999999999999/callback", "http://127.0.0.1:5100٤/callback", "http://127.0.0.1:51004/callback\n",
    "http://127.1:51004/callback", "http://2130706433:51004/callback", "http://0x7f.1:51004/callback",
    "http://127.0.0.2:51004/callback", "http://0.0.0.0:51004/callback", "http://[::ffff:127.0.0.1]:51004/callback",
    "http://[::]:51004/callback", "http://localhost:51004/callback", "HTTP://127.0.0.1:51004/callback",
    "https://127.0.0.1:51004/callback", "//127.0.0.1:51004/callback", "javascript:alert(1)", "com.example.app:/login",
    "com.example.app://login", "https://app.example.com/login", "https://app.example.com:444/login",
    "https://app.example.com/login/", "https://app.example.com.evil.example/login", "http://app.example.com/login",
    "http://127.0.0.1:51004/callback,http://evil.example", "http://127.0.0.1:51004/callback http://evil.example",
    "http://127.0.0.1:8000/callback",  # the application's own
]  # fmt: skip


@pytest.mark.attack("96")
async def test_an_unregistered_redirect_uri_gets_no_redirect(world: World) -> None:
    for redirect_uri in UNREGISTERED:
        world.events.clear()
        refused = await Native(world, redirect_uri=redirect_uri).ask()
        assert (refused.status_code, "location" in refused.headers) == (400, False), redirect_uri
        assert redirect_uri == "" or redirect_uri not in refused.text
        assert world.reasons() == ["redirect_uri_mismatch"], redirect_uri


@pytest.mark.attack("96")
@pytest.mark.parametrize(
    "redirect_uri",
    [
        "com.example.app:/login/",
        "com.example.app://login",
        "com.example.app:/",
        "COM.example.app:/login",
        LOOPBACK,
        "https://app.example.com/login?next=x",
        "https://app.example.com:443/login",
    ],
)
async def test_the_redirect_uri_of_another_client_gets_no_redirect(world: World, redirect_uri: str) -> None:
    refused = await Native(world, client_id="mobile", redirect_uri=redirect_uri).ask()
    assert (refused.status_code, "location" in refused.headers) == (400, False)


@pytest.mark.attack("96")
async def test_repeated_and_unknown_parameters_get_no_redirect(world: World) -> None:
    native = Native(world)
    for name in ("redirect_uri", "client_id", "state", "code_challenge"):
        query = [*native.params.items(), (name, native.params[name])]
        refused = await world.browser.get("/auth/authorize", params=query, headers=GET_PAGE)
        assert (refused.status_code, "location" in refused.headers) == (400, False)
    for client_id in ("", "unknown", "Desktop", None):
        refused = await Native(world, client_id=client_id).ask()  # type: ignore[arg-type]
        assert (refused.status_code, "location" in refused.headers) == (400, False)


@pytest.mark.attack("96")
async def test_a_login_needs_a_click_on_the_applications_page(world: World) -> None:
    """Another program may use the client's id and the user's single sign-on (RFC 8252 8.6)."""
    await world.login()
    calls = len(world.op.calls)
    native = Native(world)
    page = await native.ask(**{"sec-fetch-site": "cross-site"})
    assert "Desk &amp; Top" in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "set-cookie" not in page.headers
    for headers in (
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ):
        refused = await world.browser.post("/auth/authorize", data=native.params, headers={**JSON, **headers})
        assert refused.status_code == 403
    for headers in ({"sec-fetch-mode": "no-cors"}, {"sec-fetch-dest": "iframe"}, {"sec-purpose": "prefetch"}):
        assert (await native.ask(**headers)).status_code == 403
    assert len(world.op.calls) == calls


async def test_values_on_the_page_are_escaped(world: World) -> None:
    text = (await Native(world, state='"><script>', login_hint="<b>").ask()).text
    assert "<script>" not in text
    assert "<b>" not in text


@pytest.mark.attack("93")
async def test_pages_cannot_fetch_the_token(world: World) -> None:
    native = Native(world)
    code = await native.code()
    for headers in ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, {"origin": "null"}):
        assert (await native.redeem(code, headers=headers)).status_code == 403
    assert (await native.redeem(code)).status_code == 200


@pytest.mark.attack("90")
async def test_a_token_request_with_a_session_is_refused(world: World) -> None:
    await world.login()
    cookie = world.browser.cookies.get("session-8000")
    token = await Native(world).token()
    native = Native(world)
    code = await native.code()
    for headers in ({"cookie": f"session-8000={cookie}"}, {"cookie": "session-8000=x"}, {"authorization": f"Bearer {token}"}):
        refused = await native.redeem(code, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert (await native.redeem(code)).status_code == 200


@pytest.mark.attack("95")
async def test_browser_routes_refuse_a_token(world: World) -> None:
    token = await Native(world).token()
    headers = {**GET_PAGE, "authorization": f"Bearer {token}"}
    async with world.new_browser() as client:
        for path in ("/auth/login", "/auth/authorize", "/auth/callback?state=x&code=y"):
            response = await client.get(path, headers=headers)
            assert (response.status_code, "set-cookie" in response.headers) == (400, False)
        posted = await client.post(
            "/auth/authorize", data=Native(world).params, headers={**headers, "sec-fetch-site": "same-origin"}
        )
        assert (posted.status_code, "set-cookie" in posted.headers) == (400, False)
    assert await subject(world, token) == "alice"


@pytest.mark.attack("95")
async def test_no_log_event_or_url_contains_code_or_token(
    world: World, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    native = Native(world)
    code = await native.code()
    token = (await native.redeem(code)).json()["access_token"]
    await native.redeem(code)
    await ask(world, "/read", token + "x")
    written = caplog.text.replace(f"code={code}", "") + "".join(capsys.readouterr()) + repr(world.events)
    for secret in (token, token[:43], native.verifier):
        assert secret not in written
    assert code not in repr(world.events)


@pytest.mark.parametrize(
    "changes",
    [
        {"grant_type": None},
        {"grant_type": "refresh_token"},
        {"grant_type": "password"},
        {"code": None},
        {"code": ""},
        {"code": "x"},
        {"code": "é"},
        {"code": "x" * 5000},
    ],
)
async def test_an_invalid_token_request_gets_an_oauth_error(world: World, changes: dict[str, str | None]) -> None:
    code = await (native := Native(world)).code()
    response = await native.redeem(code, **changes)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
    assert response.json()["error"] in {"invalid_request", "invalid_grant", "unsupported_grant_type"}
    async with world.new_browser() as client:
        assert (await client.post("/auth/token", json={"code": code})).json() == {"error": "invalid_request"}
        assert (await client.get("/auth/token")).status_code == 405


async def test_redemptions_are_rate_limited() -> None:
    world = world_of(requests_per_minute=3)
    native = Native(world)
    assert [(await native.redeem("x")).status_code for _ in range(4)] == [400, 400, 400, 429]


@pytest.mark.parametrize(
    "redirect_uris",
    [
        [], "http://127.0.0.1/", ["http://localhost/callback"], ["http://127.0.0.1:8000/callback"], ["http://app.example.com/x"],
        ["myapp:/login"], ["https://app.example.com/x?y"], ["https://app.example.com/x#y"], ["javascript:alert(1)"], ["*"],
        ["com.example.app:login"], ["https://*.example.com/x"], ["http://127.0.0.1/\n"], ["x" * 600],
    ],
)  # fmt: skip
def test_an_unsafe_redirect_uri_is_refused_at_start(redirect_uris: Any) -> None:
    with pytest.raises(ConfigurationError, match="redirect URIs"):
        NativeClient("desktop", redirect_uris)


def test_native_clients_need_tokens_and_distinct_ids() -> None:
    client = NativeClient("desktop", ["http://127.0.0.1/callback"])
    given: dict[str, Any] = {
        "providers": [ProviderFactory.build()],
        "public_url": "http://127.0.0.1:8000",
        "sealing": SealingKeys([b"k" * 32]),
    }
    with pytest.raises(ConfigurationError, match="needs a different id"):
        OidcConfig(**given, native_clients=[client, client])
    with pytest.raises(ConfigurationError, match="on the application itself"):
        OidcConfig(**given | {"public_url": "https://x.example"}, native_clients=[NativeClient("a", ["https://x.example/y"])])
    with pytest.raises(ConfigurationError, match="id of a native client"):
        NativeClient("<b>", ["http://127.0.0.1/callback"])
    with pytest.raises(ConfigurationError, match="bearer=True"):
        World(native_clients=[client])
    assert World().app.route_handler_method_map.get("/auth/token") is None
