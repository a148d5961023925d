"""The server of `APP_METRICS_ADDRESS` on a real socket: its responses, and clients that are silent, slow or many."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from app.ops import metrics_server
from app.ops.metrics_server import MetricsServer

pytestmark = pytest.mark.anyio

PATIENCE = 60.0
KEY = "k" * 32
LARGE = b"x" * 20_000_000
"""More than the socket's buffers hold."""


class Serving:
    """A server of this event loop, and its clients."""

    def __init__(self, key: str | None) -> None:
        self.server = MetricsServer(self.render, content_type="text/plain", key=key)
        self.body = b"sessions_live 3\n"
        self.broken = False
        self.writers: list[asyncio.StreamWriter] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]

    def render(self) -> bytes:
        if self.broken:
            message = "a metric cannot be read"
            raise ValueError(message)
        return self.body

    async def connect(self, request: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(request)
        return reader, writer

    async def ask(self, *lines: bytes) -> bytes:
        reader, _ = await self.connect(b"\r\n".join((*lines, b"", b"")))
        return await to_its_end(reader)


async def to_its_end(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while part := await reader.read(65536):
                received += part
    return received


@pytest.fixture(params=[None])
async def serving(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    made = Serving(request.param)
    task = asyncio.create_task(made.server.serve(made.listening))
    yield made
    for writer in made.writers:
        writer.transport.abort()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_metrics_are_answered(serving: Serving) -> None:
    whole = await serving.ask(b"GET /metrics?name=x HTTP/1.1", b"Host: localhost", b"Accept-Encoding: gzip")
    head, _, body = whole.partition(b"\r\n\r\n")
    assert body == serving.body
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain",
        b"Content-Length: 16",
        b"Cache-Control: no-store",
        b"Connection: close",
    ]
    assert (await serving.ask(b"HEAD /metrics HTTP/1.1", b"Host: localhost")) == head + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"GET / HTTP/1.1", b"404"), (b"GET /metrics/ HTTP/1.1", b"404"), (b"", b"404"), (b"POST /metrics HTTP/1.1", b"405")],
)
async def test_anything_else_is_refused(serving: Serving, line: bytes, status: bytes) -> None:
    assert (await serving.ask(line, b"Host: localhost")).split()[1] == status


@pytest.mark.parametrize("serving", [KEY], indirect=True)
async def test_the_key_is_required_there_too(serving: Serving) -> None:
    good = f"Authorization: Bearer {KEY}".encode()
    for headers in ([], [good[:-1]], [good + b"x"], [good, good], [b"Authorization: " + KEY.encode()], [b"X: \xff", b"\xff"]):
        answer = await serving.ask(b"GET /metrics HTTP/1.1", *headers)
        assert answer.startswith(b"HTTP/1.1 401 "), headers
        assert serving.body not in answer
    for header in (good, good.replace(b"Authorization: ", b"authorization:")):
        assert (await serving.ask(b"GET /metrics HTTP/1.1", header)).endswith(serving.body)


@pytest.mark.attack("68")
async def test_silent_and_slow_clients_are_closed(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_SECONDS", 0.3)
    for request in (b"", b"GET /metrics HTTP/1.1\r\nHost: loc", b"GET /metrics HTTP/1.1\r\nA: " + b"a" * 100_000):
        reader, _ = await serving.connect(request)
        assert await to_its_end(reader) == b""

    async def drip(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"a")
            await asyncio.sleep(0.01)

    reader, writer = await serving.connect(b"GET /metrics HTTP/1.1\r\nA: ")
    dripping = asyncio.create_task(drip(writer))
    assert await to_its_end(reader) == b""
    dripping.cancel()


@pytest.mark.parametrize("after", ["nothing", "more than is read"])
async def test_a_failure_closes_the_connection_and_the_next_scrape_works(serving: Serving, after: str) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context.get("exception")))
    serving.broken = True
    reader, _ = await serving.connect(b"GET /metrics HTTP/1.1\r\n\r\n" + (b"x" * 100_000 if after != "nothing" else b""))
    assert await to_its_end(reader) == b""
    assert [type(each) for each in failures] == [ValueError]  # not hidden: it is in the log
    assert not serving.server._open
    serving.broken = False
    assert (await serving.ask(b"GET /metrics HTTP/1.1")).endswith(serving.body)


@pytest.mark.attack("68")
async def test_a_client_that_does_not_read_is_closed(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_SECONDS", 0.3)
    serving.body = LARGE
    reader, writer = await serving.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        while not serving.server._open:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        while serving.server._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await to_its_end(reader)) < len(LARGE)


@pytest.mark.attack("68")
async def test_many_clients_keep_no_other_client_out(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_SECONDS", 10 * PATIENCE)
    readers = [(await serving.connect())[0] for _ in range(100)]
    for _ in range(40):
        assert (await serving.ask(b"GET /metrics HTTP/1.1")).endswith(serving.body)
    for reader in readers[:60]:
        assert await to_its_end(reader) == b""
    assert not readers[-1].at_eof()
