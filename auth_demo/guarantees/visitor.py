"""A browser of the laboratory: one cookie jar, real HTTP and real WebSockets to the demo's own port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec

from auth_demo.guarantees.lab import COOKIE, KEY_HEADER, PREFIX, Lab

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ("Answer", "Visitor", "visitors")

_MOST_CONNECTIONS: Final = 256
_SECONDS: Final = 30.0
_SUCCESS: Final = range(200, 300)


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    touches_cookie: bool
    """Whether it sets or deletes a cookie."""
    content: dict[str, Any]

    @property
    def good(self) -> bool:
        """Whether the request was carried out."""
        return self.status in _SUCCESS


class Visitor:
    """One browser. Its session ends with the block of `visitors`."""

    def __init__(self, lab: Lab, base: str) -> None:
        self._lab = lab
        self._base = base
        limits = httpx2.Limits(max_connections=_MOST_CONNECTIONS)
        self._http = httpx2.AsyncClient(
            base_url=f"{base}{PREFIX}", timeout=_SECONDS, limits=limits, trust_env=False, headers={KEY_HEADER: lab.key}
        )

    @property
    def cookie(self) -> str:
        """The session cookie."""
        return self._http.cookies.get(COOKIE) or ""

    @cookie.setter
    def cookie(self, value: str) -> None:
        self._http.cookies.set(COOKIE, value, domain=urlsplit(self._base).hostname or "")

    async def get(self, path: str) -> Answer:
        """Send a GET."""
        return _answer(await self._http.get(path))

    async def post(self, path: str, content: object = None, **query: str) -> Answer:
        """Send a POST, with JSON where there is content."""
        return _answer(await self._http.post(path, params=query, json=content))

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket with the cookie."""
        from websockets.asyncio.client import connect  # noqa: PLC0415 - one demonstration needs it

        url = f"ws://{urlsplit(self._base).netloc}{PREFIX}/socket"
        headers = {KEY_HEADER: self._lab.key, "cookie": f"{COOKIE}={self.cookie}"}
        async with connect(url, additional_headers=headers, proxy=None, open_timeout=_SECONDS, close_timeout=1) as opened:
            await opened.recv()
            yield opened

    async def leave(self) -> None:
        """End the session and close the connections."""
        with suppress(httpx2.HTTPError):
            await self._http.post("/end")
        await self._http.aclose()


@asynccontextmanager
async def visitors(lab: Lab, base: str, number: int) -> AsyncIterator[list[Visitor]]:
    """Some browsers, whose sessions are ended at the end of the block."""
    there = [Visitor(lab, base) for _ in range(number)]
    try:
        yield there
    finally:
        for visitor in there:
            await visitor.leave()


def _answer(response: httpx2.Response) -> Answer:
    is_json = "json" in response.headers.get("content-type", "")
    return Answer(response.status_code, "set-cookie" in response.headers, response.json() if is_json else {})
