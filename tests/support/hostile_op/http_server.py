"""An HTTP/1.1 server on loopback that can also hang, drip, send false lengths and close early."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Writes a response byte by byte."""
MARK = "zqx-said-by-the-provider"
"""Part of every text made up by the provider; it must not appear in a response or log of the application."""


class Call(NamedTuple):
    """A received request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]
    repeated: bool
    """Whether a parameter was repeated."""


class Answer(NamedTuple):
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = b""


def json_answer(value: Any, status: int = 200, media_type: str = "application/json") -> Answer:
    return Answer(status, [("content-type", media_type), ("cache-control", "no-store")], json.dumps(value).encode())


class HttpServer:
    """Passes each request to `handle`; runs in the caller's event loop."""

    def __init__(self, handle: Callable[[Call], Awaitable[Answer | Fault]]) -> None:
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.origin = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1_000_000)
        self.origin = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            answer = await self._handle(await _read(reader))
            if isinstance(answer, Answer):
                headers = [*answer.headers, ("content-length", str(len(answer.body))), ("connection", "close")]
                writer.write(head(answer.status, headers) + answer.body)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Call:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    query = parse_qsl(url.query, keep_blank_values=True)
    form = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    repeated = len(dict(query)) != len(query) or len(dict(form)) != len(form)
    return Call(method, url.path, dict(query), headers, dict(form), repeated)


def head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


_JSON = ("content-type", "application/json")


async def hang(writer: asyncio.StreamWriter) -> None:
    """Accept the request and send nothing."""
    while not writer.is_closing():  # noqa: ASYNC110 - nothing tells when a peer has gone
        await asyncio.sleep(0.02)


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, which satisfies every timeout for a single read."""
    writer.write(head(200, [_JSON, ("content-length", "100000")]))
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    """Send headers without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"x-more: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a response."""
    writer.close()


async def cut_short(writer: asyncio.StreamWriter) -> None:
    """Send less than Content-Length."""
    writer.write(head(200, [_JSON, ("content-length", "5000")]) + b'{"issuer":')
    await writer.drain()


async def not_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
    await writer.drain()


async def fifty_megabytes(writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, [_JSON, ("transfer-encoding", "chunked")]))
    for _ in range(800):
        writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def gzip_bomb(writer: asyncio.StreamWriter) -> None:
    body = gzip.compress(bytes(50_000_000), 1)
    writer.write(head(200, [_JSON, ("content-encoding", "gzip"), ("content-length", str(len(body)))]) + body)
    await writer.drain()


def answers(status: int, body: str = MARK, **headers: str) -> Fault:
    """Respond to every request like this."""

    async def send(writer: asyncio.StreamWriter) -> None:
        named: Mapping[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}
        all_headers = [*named.items(), ("content-length", str(len(body.encode()))), ("connection", "close")]
        writer.write(head(status, all_headers) + body.encode())
        await writer.drain()

    return send


HTML = answers(200, f"<html>{MARK}</html>", content_type="text/html")
NOT_JSON = answers(200, f"<html>{MARK}</html>", content_type="application/json")
CUT_JSON = answers(200, f'{{"access_token": "{MARK}', content_type="application/json")
LIST_JSON = answers(200, f'["{MARK}"]', content_type="application/json")
DEEP_JSON = answers(200, "[" * 100_000, content_type="application/json")
SERVER_ERROR = answers(500, f'{{"error": "{MARK}"}}', content_type="application/json")
UNAVAILABLE = answers(503, MARK, content_type="text/plain", retry_after="1")
