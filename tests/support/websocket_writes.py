"""WebSockets that start, renew or change a session before they accept, as an application in a separate process."""

from __future__ import annotations

import os
from typing import Any

from litestar import WebSocket, get, websocket
from litestar.params import FromPath

from session_core import Session, Sessions
from session_core.errors import ResponseStartedError
from tests.support.sessions import ALICE, AppSession, make_app


@websocket("/try/{what:str}")
async def attempt(socket: WebSocket[Any, Any, Any], session: Session[AppSession], what: FromPath[str]) -> None:
    """Do the action, accept, and send its result."""
    answer = "done"
    try:
        match what:
            case "login":
                await session.login(ALICE)
            case "regenerate":
                await session.regenerate()
            case "update":
                await session.update(visits=7)
            case "destroy":
                await session.destroy()
            case "assign":
                session.data.visits = 7
    except ResponseStartedError as error:
        answer = str(error)
    await socket.accept()
    await socket.send_text(answer)
    await socket.close()


@get("/count")
async def count(sessions: Sessions) -> int:
    return (await sessions.stats()).total


app = make_app(attempt, count, store=os.environ["TEST_STORE"], store_timeout=30)
