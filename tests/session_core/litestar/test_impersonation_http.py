"""Impersonation over HTTP with Litestar: guards, events, tokens, login and logout, open connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Request, get, post

from session_core import Event, Identity, Impersonation, Session, Sessions
from session_core.events import current_actor
from session_core.guards import (
    forbids_impersonation,
    requires_acr,
    requires_login,
    requires_recent_login,
    requires_role,
)
from session_core.oidc import Tokens
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GET_PAGE, ISSUER, World
from tests.support.live_handlers import HANDLERS as LIVE
from tests.support.live_wire import CLOSED, FINISHED, answered, open_socket, open_stream, until
from tests.support.sessions import AppSession, act_as, act_as_myself, client_of, cookie_of, make_app, make_config

pytestmark = pytest.mark.anyio

ADMINS = {"admin"}


def allow(actor: Identity, user: Identity) -> bool:
    return actor.subject in ADMINS and user.subject not in ADMINS


def roles(session: Any) -> set[str]:
    """Roles by the current identity, as an application would resolve them: the user's during impersonation."""
    return {"admin"} if session.identity.subject in ADMINS else {"user"}


@get("/page", guards=[requires_login])
async def page(session: Session[AppSession], request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {
        "subject": session.identity.subject if session.identity else None,
        "actor": session.actor.subject if session.actor else None,
        "in_context": actor.subject if (actor := current_actor()) else None,
        "user": request.user,
    }


@post("/both")
async def both(session: Session[AppSession], request: Request[Any, Any, Any]) -> list[Any]:
    """`request.user` changes within one handler."""
    seen = [request.user]
    await session.impersonate(Identity(issuer=ISSUER, subject="bob"))
    seen.append(request.user)
    await session.end_impersonation()
    return [*seen, request.user]


@get("/recent", guards=[requires_recent_login(minutes=5)])
async def recent() -> None: ...


@get("/strong", guards=[requires_acr("phr")])
async def strong() -> None: ...


@get("/own", guards=[forbids_impersonation])
async def own() -> None: ...


@get("/admin", guards=[requires_role("admin")])
async def admin_page() -> None: ...


@get("/token", guards=[requires_login])
async def token(session: Session[AppSession], tokens: Tokens) -> str:
    return await tokens.access_token(session)


@get("/mine", guards=[requires_login])
async def mine(session: Session[AppSession], sessions: Sessions) -> int:
    assert session.identity is not None
    return len(await sessions.list_for(session.identity))


ROUTES = [act_as, act_as_myself, page, both, recent, strong, own, admin_page, token, mine]
GUARDED = ["/recent", "/strong", "/own", "/admin"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    config = {"impersonation": Impersonation(allow=allow), "roles": roles, "load_user": lambda identity, _: identity.subject}
    world = World(handlers=ROUTES, config=config)
    world.op.subject = "admin"
    world.op.claims = {"acr": "phr"}
    world.op.auth_time = world.clock.now() // 1000
    await world.login()
    yield world
    await world.browser.aclose()


async def shown(world: World, browser: httpx.AsyncClient | None = None) -> tuple[str | None, str | None]:
    answer = (await (browser or world.browser).get("/page")).json()
    assert answer["in_context"] == answer["actor"]
    assert answer["user"] == answer["subject"]
    return answer["subject"], answer["actor"]


def events(world: World, name: str) -> list[Event]:
    return [event for event in world.events if event.name == name]


@pytest.mark.attack("84")
async def test_routes_for_the_user_alone_are_closed_and_never_redirect_to_the_login(world: World) -> None:
    browser = world.browser
    for path in GUARDED:
        assert (await browser.get(path)).status_code == 200
    assert (await browser.post("/act-as/bob")).status_code == 201
    assert await shown(world) == ("bob", "admin")
    for path in ("/recent", "/strong", "/own"):
        for accept in ("application/json", "text/html"):
            answer = await browser.get(path, headers={**GET_PAGE, "accept": accept})
            assert (answer.status_code, "location" in answer.headers) == (403, False), path
        assert (await browser.get(path)).json()["code"] == "impersonation_forbidden"
    assert (await browser.get("/admin")).status_code == 403
    nested = await browser.post("/act-as/carol")
    assert (nested.status_code, nested.json()["code"]) == (403, "impersonation_forbidden")
    assert await shown(world) == ("bob", "admin")
    assert (await browser.post("/act-as-myself")).status_code == 201
    assert await shown(world) == ("admin", None)
    for path in GUARDED:
        assert (await browser.get(path)).status_code == 200


@pytest.mark.attack("84")
async def test_a_guard_against_impersonation_refuses_visitors_too(world: World) -> None:
    async with world.new_browser() as visitor:
        assert (await visitor.get("/own")).status_code == 401


@pytest.mark.attack("85")
async def test_every_event_names_the_administrator(world: World) -> None:
    browser = world.browser
    await browser.post("/act-as/bob")
    during = len(world.events)
    await browser.post("/visit")
    await browser.post("/regenerate")
    await browser.get("/own")
    await browser.get("/mine", headers={"cookie": browser.headers.get("cookie", "")})
    assert {event.name for event in world.events[during:]} == {"session.regenerated", "access.denied"}
    assert all(event.actor is not None and event.actor.subject == "admin" for event in world.events[during:])
    assert all(event.identity is not None and event.identity.subject == "bob" for event in world.events[during:])
    await browser.post("/act-as-myself")
    after = len(world.events)
    await browser.post("/regenerate")
    assert [event.actor for event in world.events[after:]] == [None]


@pytest.mark.attack("85")
async def test_the_session_state_shows_the_impersonation(world: World) -> None:
    assert "actor" not in (await world.browser.get("/auth/session")).json()
    await world.browser.post("/act-as/bob")
    state = (await world.browser.get("/auth/session")).json()
    assert (state["subject"], state["actor"]) == ("bob", {"issuer": ISSUER, "subject": "admin"})
    assert (state["expires_in"], state["absolute_expires_in"]) == (900, 900)


@pytest.mark.attack("84")
async def test_tokens_stay_with_the_administrator(world: World) -> None:
    before = await world.browser.get("/token")
    assert before.status_code == 200
    await world.browser.post("/act-as/bob")
    refused = await world.browser.get("/token")
    assert (refused.status_code, refused.json()["code"]) == (403, "impersonation_forbidden")
    await world.browser.post("/act-as-myself")
    assert (await world.browser.get("/token")).text == before.text


@pytest.mark.attack("82")
async def test_a_logout_ends_both_identities_also_at_the_provider(world: World) -> None:
    await world.browser.post("/act-as/bob")
    cookie = cookie_of(world.browser)
    answer = await world.browser.post("/auth/logout")
    assert answer.headers["location"].startswith(f"{ISSUER}/")
    assert "id_token_hint=" in answer.headers["location"]  # the administrator's, who logged in
    (logout,) = events(world, "logout.local")
    assert logout.identity is not None
    assert logout.identity.subject == "admin"
    async with world.new_browser(cookies={"session-8000": cookie or ""}) as other:
        assert (await other.get("/page")).status_code == 401
        assert (await other.post("/act-as-myself")).status_code == 201  # has no effect
        assert (await other.get("/page")).status_code == 401


@pytest.mark.attack("82")
async def test_only_a_logout_token_for_the_administrator_ends_it(world: World) -> None:
    await world.browser.post("/act-as/bob")
    assert (await world.send_logout(world.op.logout_token(sub="bob", sid="another"))).status_code == 200
    assert await shown(world) == ("bob", "admin")
    assert (await world.send_logout(world.op.logout_token(sub="admin"))).status_code == 200
    assert (await world.browser.get("/page")).status_code == 401


@pytest.mark.attack("82")
async def test_a_removed_role_ends_it_on_the_next_request(world: World) -> None:
    await world.browser.post("/act-as/bob")
    ADMINS.discard("admin")
    try:
        answer = await world.browser.get("/page")
    finally:
        ADMINS.add("admin")
    assert answer.status_code == 401
    assert (await world.browser.get("/page")).status_code == 401  # permanently
    (ended,) = events(world, "impersonation.ended")
    assert (ended.reason, ended.actor and ended.actor.subject) == ("refused", "admin")


@pytest.mark.attack("83")
async def test_a_login_in_the_same_browser_ends_the_impersonation(world: World) -> None:
    await world.browser.patch("/assign", json={"note": "of the administrator"})
    await world.browser.post("/act-as/bob")
    await world.browser.patch("/assign", json={"note": "as bob"})
    await world.login(max_age="0")
    assert await shown(world) == ("admin", None)
    assert (await world.browser.get("/read")).json()["data"]["note"] == "of the administrator"
    assert [event.reason for event in events(world, "impersonation.ended")] == ["login"]


async def test_an_old_login_of_the_administrator_needs_a_new_one(world: World) -> None:
    world.clock.advance(seconds=301)
    answer = await world.browser.post("/act-as/bob")
    assert (answer.status_code, answer.json()["code"]) == (401, "step_up_required")
    assert 'max_age="300"' in answer.headers["www-authenticate"]
    assert await shown(world) == ("admin", None)


async def test_request_user_follows_the_impersonation(world: World) -> None:
    assert (await world.browser.post("/both")).json() == ["admin", "bob", "admin"]


@pytest.mark.attack("80")
async def test_impersonation_ends_after_fifteen_minutes(world: World) -> None:
    answer = await world.browser.post("/act-as/bob")
    assert "Max-Age=900" in answer.headers["set-cookie"]
    for _ in range(14):
        world.clock.advance(seconds=60)
        assert await shown(world) == ("bob", "admin")
        await world.browser.post("/visit")
    world.clock.advance(seconds=60)
    assert (await world.browser.post("/visit")).json() == {"visits": 1}  # a new visitor's
    assert (await world.browser.get("/page")).status_code == 401


@pytest.mark.attack("83")
@pytest.mark.parametrize("verb", ["begin", "end", "logout"])
async def test_open_connections_of_the_previous_identity_close(verb: str) -> None:
    config = make_config(clock=FakeClock(1_700_000_000_000), impersonation=Impersonation(allow=allow))
    app = make_app(*LIVE, act_as, act_as_myself, config=config)
    async with client_of(app) as client, client_of(app) as bob:
        await client.post("/login/admin")  # with the clock's current time as `auth_time`
        await bob.post("/login/bob")
        if verb != "begin":
            await client.post("/act-as/bob")
        wires = [await open_socket(app, client), await open_stream(app, client)]
        users = await open_socket(app, bob)
        await client.post({"begin": "/act-as/bob", "end": "/act-as-myself", "logout": "/logout"}[verb])
        assert [await wire.closed() for wire in wires] == [CLOSED, FINISHED]
        users.say("still here")
        await until(lambda: answered(users, "still here"))
        await users.hang_up()
