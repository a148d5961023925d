"""Litestar alone, the baseline for the cost of a session."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, WebSocket, get, websocket


@get(["/read", "/public"])
async def page(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Inject the request, as a page without a session does."""
    del request
    return {"theme": "dark"}


@websocket("/socket")
async def wait_for_client(socket: WebSocket[Any, Any, Any]) -> None:
    """Stay open until the client closes it."""
    await socket.accept()
    await socket.send_text("ready")
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def create() -> Litestar:
    """The application."""
    return Litestar([page, wait_for_client], openapi_config=None)
