"""A WebSocket with the session: the same cookie, the same guards, refused for pages of other sites.

A WebSocket changes the session that is there, with `update`; it cannot begin one or log in, since it cannot set the cookie.
"""

import time
from typing import Any

import msgspec
from litestar import Litestar, WebSocket, post, websocket

from session_core import Identity, Session, SessionConfig, SessionGoneError, SessionPlugin
from session_core.guards import requires_login


class AppSession(msgspec.Struct):
    messages: int = 0


def count(data: AppSession) -> None:
    """One more; runs again on the newest copy when another request or socket was first."""
    data.messages += 1


@post("/login")
async def login(session: Session[AppSession]) -> None:
    """Stand in for a real login; see own_login.py and oidc_login.py."""
    await session.login(Identity(issuer="https://op.example", subject="alice", auth_time=int(time.time())))


@post("/logout")
async def logout(session: Session[AppSession]) -> None:
    """End the session; sockets that are open notice with their next update."""
    await session.destroy()


@websocket("/echo", guards=[requires_login])
async def echo(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    """Send back what comes in, numbered, for as long as the session lives."""
    await socket.accept()
    try:
        async for text in socket.iter_data("text"):
            data = await session.update(count)
            await socket.send_text(f"{data.messages}: {text}")
    except SessionGoneError:
        # A write never brings a session back. 4401 is what the guards close with, too.
        await socket.close(code=4401, reason="the session has ended")


app = Litestar([login, logout, echo], plugins=[SessionPlugin(SessionConfig(AppSession))])
