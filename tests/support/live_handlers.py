"""Handlers of open connections: receiving, sending, neither, and streams of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from litestar import WebSocket, asgi, get, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.response import ServerSentEvent, Stream
from litestar.types import Receive, Scope, Send

from session_core import Session
from session_core.litestar.access import session_of
from tests.support.sessions import AppSession


def bump(data: AppSession) -> None:
    data.visits += 1


@websocket("/echo")
async def echo(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    async for text in socket.iter_data("text"):
        await socket.send_text(text if text != "count" else str((await session.update(bump)).visits))
    socket.app.state["left"] = "echo"


@websocket("/ticks")
async def ticks(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    """Sends and never receives."""
    await socket.accept()
    try:
        while True:
            await socket.send_text("tick")
            await asyncio.sleep(0.001)
    except WebSocketDisconnect as error:
        socket.app.state["left"] = error.code


@websocket("/late", opt={"session": True})
async def late(socket: WebSocket[Any, Any, Any]) -> None:
    """Asks for the session after the connection was accepted."""
    await socket.accept()
    await session_of(socket)
    async for text in socket.iter_data("text"):
        await socket.send_text(text)


@websocket("/deaf")
async def deaf(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    """Neither sends nor receives."""
    await socket.accept()
    try:
        await asyncio.Event().wait()
    finally:
        socket.app.state["left"] = "deaf"


@get("/events")
async def events(session: Session[AppSession]) -> ServerSentEvent:
    async def generate() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            STOPPED.append("events")

    return ServerSentEvent(generate())


@get("/silent")
async def silent(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    return Stream(generate())


@get("/flood")
async def flood(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    return Stream(generate())


@get("/sized")
async def sized(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    return Stream(generate(), headers={"content-length": "2"})


@get("/short")
async def short(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x"

    return Stream(generate())


@asgi("/raw", opt={"session": True}, copy_scope=True)
async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Streams without checking for a disconnect."""
    await session_of(cast("Any", type("Connection", (), {"scope": scope})))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.001)


STOPPED: list[str] = []
HANDLERS = [echo, ticks, late, deaf, events, silent, flood, sized, short, raw]
