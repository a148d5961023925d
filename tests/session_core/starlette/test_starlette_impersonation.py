"""Impersonation in a plain ASGI application: the handle, the guards, the context of events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from session_core import Event, Identity, Impersonation
from session_core.asgi.web import Response
from session_core.events import current_actor
from session_core.starlette import (
    SessionMiddleware,
    StarletteSessions,
    forbids_impersonation,
    get_session,
    requires_recent_login,
)
from session_core.testing import FakeClock
from tests.support.live_wire import CLOSED, answered, open_socket, until
from tests.support.sessions import ISSUER, make_config

pytestmark = [pytest.mark.anyio, pytest.mark.attack("84"), pytest.mark.attack("85")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    connection: Any = SimpleNamespace(scope=scope)
    session = await get_session(connection)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": session.identity.subject if session.identity else ""})
        return
    match scope["path"]:
        case "/login":
            now = session._lifecycle.clock.now() // 1000
            await session.login(Identity(issuer=ISSUER, subject="admin", auth_time=now))
        case "/act":
            await session.impersonate(Identity(issuer=ISSUER, subject="bob"))
        case "/end":
            await session.end_impersonation()
        case "/logout":
            await session.destroy()
        case "/own":
            await forbids_impersonation(connection)
        case "/recent":
            await requires_recent_login(minutes=5)(connection)
    actor = current_actor()
    shown = [session.identity and session.identity.subject, session.actor and session.actor.subject, actor and actor.subject]
    await Response(shown)(scope, receive, send)


async def test_begin_guards_and_end() -> None:
    events: list[Event] = []
    config = make_config(clock=FakeClock(), on_event=[events.append], impersonation=Impersonation(allow=lambda *_: True))
    served: Any = SessionMiddleware(app, StarletteSessions(config))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://127.0.0.1:8000") as client:
        assert (await client.get("/own")).status_code == 401
        await client.post("/login")
        assert (await client.post("/act")).json() == ["bob", "admin", "admin"]
        assert (await client.get("/")).json() == ["bob", "admin", "admin"]
        for path in ("/own", "/recent"):
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (403, "impersonation_forbidden")
            assert events[-1].actor is not None
        assert (await client.post("/end")).json() == ["admin", None, None]
        for path in ("/own", "/recent"):
            assert (await client.get(path)).status_code == 200
    assert current_actor() is None


@pytest.mark.attack("83")
@pytest.mark.parametrize("end", ["stopped", "logout", "revoked", "expired"])
async def test_a_websocket_closes_when_the_impersonation_ends(end: str) -> None:
    events: list[Event] = []
    clock = FakeClock()
    config = make_config(clock=clock, on_event=[events.append], impersonation=Impersonation(allow=lambda *_: True))
    sessions = StarletteSessions(config)
    served: Any = SessionMiddleware(app, sessions)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://127.0.0.1:8000") as client:
        await client.post("/login")
        await client.post("/act")
        wire = await open_socket(served, client)
        wire.say("who?")
        await until(lambda: answered(wire, "bob"))
        match end:
            case "stopped":
                await client.post("/end")
            case "logout":
                await client.post("/logout")
            case "revoked":
                await sessions.sessions.revoke_all(Identity(issuer=ISSUER, subject="admin"))
            case _:
                clock.advance(seconds=900)
        assert await wire.closed() == CLOSED
        shown = (await client.get("/", headers={"cookie": f"session-8000={client.cookies.get('session-8000', '')}"})).json()
        assert shown == (["admin", None, None] if end == "stopped" else [None, None, None])
    assert [event.reason for event in events if event.name == "impersonation.ended"] == [end]
