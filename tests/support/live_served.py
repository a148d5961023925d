"""An application with WebSockets and streams as a separate process; the environment names the store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from litestar import WebSocket, delete, get, post, websocket
from litestar.params import FromPath
from litestar.response import ServerSentEvent

from session_core import Identity, Session, Sessions
from session_core.stores.announcements import Heard
from tests.support.sessions import ISSUER, AppSession, make_app, plugin_in


@websocket("/echo")
async def echo(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    async for text in socket.iter_data("text"):
        await socket.send_text(text if text != "count" else str((await session.update(visits=session.data.visits + 1)).visits))


@get("/events")
async def events(session: Session[AppSession]) -> ServerSentEvent:
    async def generate() -> AsyncIterator[str]:
        yield "open"
        await asyncio.Event().wait()

    return ServerSentEvent(generate())


@post("/revoke/{subject:str}")
async def revoke(sessions: Sessions, subject: FromPath[str]) -> None:
    identity = Identity(issuer=ISSUER, subject=subject)
    for session in await sessions.list_for(identity):
        await sessions.revoke(session.handle, identity=identity)


@delete("/revoke/{subject:str}")
async def revoke_all(sessions: Sessions, subject: FromPath[str]) -> None:
    await sessions.revoke_all(Identity(issuer=ISSUER, subject=subject))


@get("/handle")
async def handle(session: Session[AppSession]) -> str:
    return session.handle or ""


app = make_app(
    echo,
    events,
    revoke,
    revoke_all,
    handle,
    store=os.environ["TEST_STORE"],
    store_timeout=20,
    max_sessions_per_user=2,
    poll_interval=float(os.environ.get("TEST_POLL", "0.5")),
)

if "TEST_DEAF" in os.environ:  # announcements are sent, but not received
    store: Any = plugin_in(app).store.inner

    async def listen(heard: Heard, *, patience: float) -> None:
        heard(None)
        await asyncio.sleep(3600)

    store.listen = listen
