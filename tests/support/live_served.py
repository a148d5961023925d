"""An application with WebSockets and streams as a separate process; the environment names the store."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from litestar import WebSocket, delete, get, post, websocket
from litestar.params import FromPath
from litestar.response import ServerSentEvent

from session_core import Event, Identity, Impersonation, Session, Sessions
from session_core.stores.announcements import Heard
from tests.support.sessions import ISSUER, AppSession, make_app, plugin_in

BRIEFLY = 8
"""Seconds that are enough to open two connections on a busy machine."""


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


@post("/act-as/{subject:str}")
async def act_as(session: Session[AppSession], subject: FromPath[str]) -> None:
    """Log an administrator in, who acts as a user at once."""
    await session.login(Identity(issuer=ISSUER, subject="alice", sid="op-alice", auth_time=int(time.time())))
    await session.impersonate(Identity(issuer=ISSUER, subject=subject))


@post("/act-briefly-as/{subject:str}")
async def act_briefly_as(session: Session[AppSession], subject: FromPath[str]) -> None:
    lifecycle = plugin_in(app).lifecycle
    lifecycle.impersonation = Impersonation(allow=lambda *_: True, seconds=BRIEFLY)
    await act_as.fn(session, subject)


@post("/act-as-myself")
async def act_as_myself(session: Session[AppSession]) -> None:
    await session.end_impersonation()


def record(event: Event) -> None:
    if event.actor is not None:
        line = json.dumps([event.name, event.reason, event.handle]) + "\n"
        with open(os.environ["TEST_EVENTS"], "a", encoding="utf-8") as file:  # noqa: PTH123 - one write, of both processes
            file.write(line)


@get("/handle")
async def handle(session: Session[AppSession]) -> str:
    return session.handle or ""


app = make_app(
    echo,
    events,
    revoke,
    revoke_all,
    handle,
    act_as,
    act_briefly_as,
    act_as_myself,
    on_event=[record] if "TEST_EVENTS" in os.environ else [],
    impersonation=Impersonation(allow=lambda *_: True),
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
