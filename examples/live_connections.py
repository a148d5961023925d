"""A WebSocket and an event stream that end with the session: on logout, on every node, without code in the handlers.

The handler sees a client that disconnects. Release resources in `finally`, as always.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Litestar, WebSocket, get, post, websocket
from litestar.response import ServerSentEvent

from session_core import Identity, Session, SessionConfig, SessionPlugin, Sessions
from session_core.guards import requires_login


class AppSession(msgspec.Struct):
    theme: str = "light"


ONLINE: list[str] = []


@post("/login")
async def login(session: Session[AppSession]) -> None:
    """Stand in for a real login; see own_login.py and oidc_login.py."""
    await session.login(Identity(issuer="https://op.example", subject="alice", auth_time=int(time.time())))


@post("/logout")
async def logout(session: Session[AppSession]) -> None:
    """Close the connections of this browser."""
    await session.destroy()


@post("/logout-everywhere", guards=[requires_login])
async def logout_everywhere(session: Session[AppSession], sessions: Sessions) -> None:
    """Close the connections of the user in all browsers, on all nodes."""
    if session.identity:
        await sessions.revoke_all(session.identity)


@websocket("/chat", guards=[requires_login])
async def chat(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    """Answer messages. The loop ends when the client disconnects and when the session ends."""
    await socket.accept()
    ONLINE.append("chat")
    try:
        async for text in socket.iter_data("text"):
            await socket.send_text(f"you said {text}")
    finally:
        ONLINE.remove("chat")


@get("/clock", guards=[requires_login])
async def clock(session: Session[AppSession]) -> ServerSentEvent:
    """Send the time until the session ends."""

    async def ticks() -> AsyncIterator[str]:
        ONLINE.append("clock")
        try:
            while True:
                yield time.strftime("%H:%M:%S")
                await asyncio.sleep(1)
        finally:
            ONLINE.remove("clock")

    return ServerSentEvent(ticks())


@get("/online")
async def online() -> list[str]:
    """Show the open connections of this node."""
    return sorted(ONLINE)


# With Redis or PostgreSQL a logout reaches all nodes in milliseconds, with SQLite all workers in half a second.
config = SessionConfig(AppSession, store=os.environ.get("SESSION_STORE", "memory://"))
app = Litestar([login, logout, logout_everywhere, chat, clock, online], plugins=[SessionPlugin(config)])
