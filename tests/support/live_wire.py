"""A connection as a server holds it, a test application for it, and the ways it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from litestar import Litestar

from session_core import Identity
from session_core.stores.base import SessionIndex, SessionStore
from tests.support.live_handlers import HANDLERS
from tests.support.sessions import ALICE, make_app, plugin_in

DEADLINE = 30.0  # long: a loaded machine must not fail a test
BEAT = 0.02
CLOSED = {"type": "websocket.close", "code": 4401, "reason": "session ended"}
FINISHED = {"type": "http.response.body", "body": b"", "more_body": False}


class Wire:
    """One connection as a server holds it."""

    def __init__(self, app: Any, path: str, client: httpx.AsyncClient, *, kind: str = "http", token: str | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if kind == "websocket":
            self._incoming.put_nowait({"type": "websocket.connect"})
        else:
            self._incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        cookie = f"session-8000={client.cookies['session-8000']}".encode() if "session-8000" in client.cookies else b""
        presented = (b"cookie", cookie) if token is None else (b"authorization", f"Bearer {token}".encode())
        scope: dict[str, Any] = {
            "type": kind, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [presented],
            "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
            "asgi": {"version": "3.0", "spec_version": "2.3"}, "extensions": {}, "root_path": "",
        }  # fmt: skip
        if kind == "http":
            scope["method"] = "GET"
        self.task = asyncio.create_task(app(scope, self._incoming.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def say(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    @property
    def open(self) -> bool:
        last = self.sent[-1] if self.sent else {}
        return last.get("type") != "websocket.close" and last.get("more_body", True)

    @property
    def heard(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    async def started(self) -> Wire:
        await until(lambda: bool(self.sent))
        return self

    async def closed(self) -> dict[str, Any]:
        """The last message, after the handler has ended too."""
        async with asyncio.timeout(DEADLINE):
            await self.task
        return self.sent[-1]

    async def hang_up(self) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        self._incoming.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(DEADLINE):
            await self.task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.001)


def answered(wire: Wire, text: str) -> bool:
    return wire.heard[-1:] == [text]


def live_app(**options: Any) -> Litestar:
    options.setdefault("poll_interval", 60.0)  # announcements arrive long before the next poll
    return make_app(*HANDLERS, **options)


async def open_socket(app: Any, client: httpx.AsyncClient, path: str = "/echo", *, token: str | None = None) -> Wire:
    return await Wire(app, path, client, kind="websocket", token=token).started()


async def open_stream(app: Litestar, client: httpx.AsyncClient, path: str = "/events") -> Wire:
    return await Wire(app, path, client).started()


def user_index(subject: str) -> SessionIndex:
    return SessionIndex(user=Identity(issuer=ALICE.issuer, subject=subject).user_key)


async def behind(app: Litestar, subject: str = "alice") -> None:
    """End a user's sessions as another process would, without a local announcement."""
    store: SessionStore = plugin_in(app).store.inner
    await store.delete_by(user_index(subject))
