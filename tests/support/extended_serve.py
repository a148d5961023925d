"""`serve` with additional routes that stay open; run as a module, with the options of the command.

`TEST_SILENT_SECONDS` replaces the time for which a silent connection is kept.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from litestar import WebSocket, get, post, websocket
from litestar.params import FromPath
from litestar.response import ServerSentEvent, Stream

import app.asgi
import app.cli
import app.ops.stopping
from app.session_data import AppSession
from session_core import Session

create_app = app.asgi.create_app
FOREVER = 3600


@get("/test/events")
async def events() -> ServerSentEvent:
    """Send one event, then nothing."""

    async def generate() -> AsyncIterator[str]:
        yield "open"
        await asyncio.sleep(FOREVER)

    return ServerSentEvent(generate())


@get("/test/session-events")
async def session_events(session: Session[AppSession]) -> ServerSentEvent:
    """The same with the session, so that the stream is watched."""

    async def generate() -> AsyncIterator[str]:
        yield "open"
        await asyncio.sleep(FOREVER)

    return ServerSentEvent(generate())


@get("/test/flood")
async def flood() -> ServerSentEvent:
    """Send without end."""

    async def generate() -> AsyncIterator[str]:
        while True:
            yield "again"
            await asyncio.sleep(0)

    return ServerSentEvent(generate())


@get("/test/lines")
async def lines() -> Stream:
    """A stream whose content type does not announce an event stream."""

    async def generate() -> AsyncIterator[bytes]:
        yield b"{}\n"
        await asyncio.sleep(FOREVER)

    return Stream(generate(), media_type="application/x-ndjson")


@get("/test/slow")
async def slow() -> str:
    """A slow request; writes a file when it has started."""
    Path("slow").touch()  # noqa: ASYNC240 - a moment
    await asyncio.sleep(1)
    return "done"


@get("/test/stuck")
async def stuck() -> None:
    """A request that never ends by itself."""
    await asyncio.sleep(FOREVER)


@get("/test/large")
async def large() -> bytes:
    """More than the socket's buffers hold."""
    return b"x" * 50_000_000


@post("/test/visit")
async def visit(session: Session[AppSession]) -> None:
    """Use the session; each call adds a line to the audit trail."""
    await session.update(visits=session.data.visits + 1)


@websocket("/test/socket/{kind:str}")
async def socket(socket: WebSocket[Any, Any, Any], kind: FromPath[str]) -> None:
    """Echo; or ignore messages and send none; or send without end."""
    await socket.accept()
    await socket.send_text("open")
    if kind == "deaf":
        await asyncio.sleep(FOREVER)
    while kind == "ticks":
        await socket.send_text("tick")
        await asyncio.sleep(0.01)
    async for text in socket.iter_data("text"):
        await socket.send_text(text)


def create_extended_app(*arguments: Any, **options: Any) -> Any:
    """The application with these routes."""
    made = create_app(*arguments, **options)
    for handler in (events, session_events, flood, lines, slow, stuck, large, visit, socket):
        made.register(handler)
    return made


# On import, not on run, because a spawned worker imports this module too.
app.asgi.create_app = create_extended_app
if silent := os.environ.get("TEST_SILENT_SECONDS"):
    app.cli.SILENT_SECONDS = int(silent)  # type: ignore[misc, attr-defined]
    app.ops.stopping.SILENT_SECONDS = int(silent)  # type: ignore[misc]

if __name__ == "__main__":
    sys.exit(app.cli.serve())
