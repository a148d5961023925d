"""Answers `/metrics` on a separate address, in a thread: silent or many clients cost it nothing and delay no other client."""

from __future__ import annotations

import asyncio
import hmac
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ("MetricsServer",)

_SECONDS: Final = 10.0
"""For one request and its response: longer than any scrape."""
_MOST_CONNECTIONS: Final = 32
"""Above it the oldest is closed, not the newest refused: a client that opens many keeps no scrape out."""
_MAX_HEAD: Final = 16_384
_TYPE: Final = b"Content-Type"


class MetricsServer:
    """Serves what `render` returns, to clients that have `key` if there is one."""

    def __init__(self, render: Callable[[], bytes], *, content_type: str, key: str | None) -> None:
        self._render = render
        self._content_type = content_type.encode()
        self._expected = None if key is None else f"Bearer {key}".encode()
        self._open: deque[asyncio.StreamWriter] = deque()

    def start(self, host: str, port: int) -> int:
        """Listen, and serve from a thread that ends with the process; return the port. Raises `OSError`."""
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family)
        threading.Thread(target=asyncio.run, args=(self.serve(listening),), name="metrics", daemon=True).start()
        return int(listening.getsockname()[1])

    async def serve(self, listening: socket.socket) -> None:
        """Serve on a listening socket until cancelled."""
        server = await asyncio.start_server(self._connected, sock=listening, limit=_MAX_HEAD)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        if len(self._open) > _MOST_CONNECTIONS:
            self._open.popleft().transport.abort()
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.transport.abort()  # no effect after an orderly close; a client must not wait if rendering fails
            with suppress(ValueError):  # closed as the oldest
                self._open.remove(writer)

    def _answer(self, head: bytes) -> bytes:
        request, *lines = head.split(b"\r\n")
        method, _, rest = request.partition(b" ")
        if rest.partition(b" ")[0].partition(b"?")[0] != b"/metrics":
            return _response(b"404 Not Found")
        if method not in {b"GET", b"HEAD"}:
            return _response(b"405 Method Not Allowed", (b"Allow", b"GET, HEAD"))
        if self._expected is not None and not hmac.compare_digest(_header(lines, b"authorization"), self._expected):
            return _response(b"401 Unauthorized", (b"WWW-Authenticate", b"Bearer"))
        body = self._render()
        return _response(b"200 OK", (_TYPE, self._content_type), body=body, with_body=method == b"GET")


def _header(lines: list[bytes], wanted: bytes) -> bytes:
    """Return the value of a header; empty if it is not there exactly once."""
    values = [value.strip() for name, _, value in (line.partition(b":") for line in lines) if name.lower() == wanted]
    return values[0] if len(values) == 1 else b""


def _response(status: bytes, *headers: tuple[bytes, bytes], body: bytes = b"", with_body: bool = True) -> bytes:
    given = (*headers, (b"Content-Length", b"%d" % len(body)), (b"Cache-Control", b"no-store"), (b"Connection", b"close"))
    head = b"".join(b"%s: %s\r\n" % pair for pair in given)
    return b"HTTP/1.1 %s\r\n%s\r\n%s" % (status, head, body if with_body else b"")
