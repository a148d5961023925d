"""Thousands of silent or idle connections do not delay other requests."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.ops.open_files import connections_per_worker
from tests.app.test_app_serve import run, serving
from tests.support.websocket_client import WebSocketClient

pytestmark = pytest.mark.anyio
EXTENDED = (sys.executable, "-m", "tests.support.extended_serve")
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from app.cli import serve
sys.exit(serve())
"""
PATIENCE = 60.0
"""For one response on a busy machine; a full server never responds."""
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def many_files() -> None:
    """This process holds the client side of each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 8192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


@asynccontextmanager
async def connections(url: str, number: int, request: bytes = b"") -> AsyncIterator[list[Connection]]:
    """Open connections that have each sent `request`; a complete request has received the head of its response."""
    port = int(url.rpartition(":")[2])
    gate = asyncio.Semaphore(200)

    async def open_one() -> Connection:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            if request.endswith(b"\r\n\r\n"):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head.partition(b"\r\n")[0], head
            return reader, writer

    opened: list[Connection] = []
    try:
        async with asyncio.timeout(4 * PATIENCE):
            opened += await asyncio.gather(*(open_one() for _ in range(number)))
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def answer(url: str, path: str) -> float:
    """The seconds until a new connection receives its response."""
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE), connections(url, 1, get(path)):
        return time.monotonic() - began


async def usual(url: str) -> float:
    """The median of twenty."""
    return sorted([await answer(url, "/") for _ in range(20)])[10]


@pytest.mark.attack("68")
async def test_idle_streams_and_kept_alive_connections_do_not_slow_others(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2", command=EXTENDED) as (_, url):
        alone = await usual(url)
        async with (
            connections(url, 1500, get("/test/events")),
            connections(url, 1500, get("/health/live")),
        ):
            # A busy machine delays some of the three attempts; a server slowed by its connections delays all of them.
            beside = min([await usual(url) for _ in range(3)])
            assert await answer(url, "/health/live") < PATIENCE
            sockets = [await WebSocketClient.connect(f"{url}/test/socket/echo", "") for _ in range(20)]
            for socket in sockets:
                socket.send("hello")
                assert [await socket.receive(), await socket.receive()] == ["open", "hello"]
                await socket.close()
    assert beside < 10 * alone + 0.2, (alone, beside)


@pytest.mark.attack("68")
async def test_silent_connections_delay_no_request_and_are_closed(tmp_path: Path) -> None:
    silent = {
        "nothing": b"",
        "half a head": b"GET / HTTP/1.1\r\nHost: loc",
        "no body": b"POST /api/session/visits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
    }
    with serving(tmp_path, command=EXTENDED, TEST_SILENT_SECONDS="3") as (_, url):
        for request in silent.values():
            async with connections(url, 1200, request) as opened:
                assert await answer(url, "/health/live") < PATIENCE
                async with asyncio.timeout(3 + PATIENCE):
                    for reader, _ in opened:
                        await reader.read()


@pytest.mark.attack("68")
async def test_a_body_that_never_arrives_is_a_408(tmp_path: Path) -> None:
    head = b"PATCH /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    with serving(tmp_path, command=EXTENDED, TEST_SILENT_SECONDS="1") as (_, url):
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b'{"theme"')
        async with asyncio.timeout(PATIENCE):
            whole = await reader.read()  # read to the end: the server closes the connection
        writer.close()
    assert whole.startswith(b"HTTP/1.1 408 "), whole


def test_a_low_limit_of_open_files_is_reported_at_start(tmp_path: Path) -> None:
    result = run(tmp_path, sys.executable, "-c", LIMITED.format(soft=200, hard=200), "--port", "1")
    assert result.returncode == 1
    assert result.stderr == "error: the limit of open files is too low to serve; raise it, for example: ulimit -n 4096\n"


async def test_the_limit_is_raised_and_a_low_one_is_reported(tmp_path: Path) -> None:
    command = (sys.executable, "-c", LIMITED.format(soft=300, hard=2000))
    with serving(tmp_path, command=command) as (process, url):
        assert await answer(url, "/health/live") < PATIENCE
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert "note: a worker holds at most 1744 connections; for more, raise the limit of open files\n" in out


@pytest.mark.parametrize(("files", "connections"), [(256, 0), (1024, 768), (20_000, 19_744), (10**9, 100_000)])
def test_a_worker_reserves_some_files_for_itself(files: int, connections: int) -> None:
    assert connections_per_worker(files) == connections
