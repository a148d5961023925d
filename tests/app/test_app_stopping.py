"""SIGTERM with open connections: they are closed, requests finish, store and audit trail stay consistent, all in time."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from app.data.database import migrate
from app.ops.stopping import KILL_SECONDS
from tests.app.test_app_serve import serving, wait_until_free
from tests.support.postgres_server import postgres_server
from tests.support.redis_servers import needed_valkey
from tests.support.redis_servers import running as running_redis
from tests.support.stopwatch import stopwatch
from tests.support.websocket_client import WebSocketClient

pytestmark = pytest.mark.anyio
EXTENDED = (sys.executable, "-m", "tests.support.extended_serve")
SUPERVISOR_SECONDS = 10.0
"""Docker's grace period before SIGKILL."""


class Server:
    """`serve` with additional routes, in its own process group."""

    def __init__(self, process: subprocess.Popen[str], url: str, directory: Path) -> None:
        self.process = process
        self.url = url
        self.directory = directory

    async def stop(self, *numbers: signal.Signals) -> tuple[float, str]:
        """Send signals to the whole group, as a terminal or a service manager does; return seconds and output.

        Fewer than `KILL_SECONDS` mean that no worker was killed. Granian's message about that proves nothing: it also appears
        when another thread of Granian has collected the exit status of a worker a moment before.
        """
        async with stopwatch() as watch:
            for number in numbers or (signal.SIGTERM,):
                os.killpg(self.process.pid, number)
            out, _ = await asyncio.to_thread(self.process.communicate, timeout=60)
            took = watch.seconds
        assert self.process.returncode == 0, out
        assert wait_until_free(self.url)
        return took, out

    def audited(self, event: str) -> int:
        with sqlite3.connect(self.directory / "var" / "app.db") as database:
            count: int = database.execute("SELECT sum(count) FROM audit_trail WHERE event = ?", (event,)).fetchone()[0]
        database.close()
        return count


@contextmanager
def server(directory: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    with serving(directory, *arguments, command=EXTENDED, start_new_session=True, **environment) as (process, url):
        yield Server(process, url, directory)


async def slow_request(served: Server, client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """A request in progress."""
    task = asyncio.create_task(client.get("/test/slow"))
    async with asyncio.timeout(60):
        while not (served.directory / "slow").exists():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)
    return task


class Stream:
    """A streaming response, read as it arrives."""

    def __init__(self, client: httpx.AsyncClient, response: httpx.Response) -> None:
        self.response = response
        self._client = client
        self._chunks = response.aiter_raw()

    @classmethod
    async def open(cls, url: str) -> Stream:
        client = httpx.AsyncClient(timeout=60)
        response = await client.send(client.build_request("GET", url), stream=True)
        stream = cls(client, response)
        await anext(stream._chunks)
        return stream

    async def end(self) -> str:
        """How the response ended: `complete`, or the error."""
        try:
            async for _ in self._chunks:
                pass
        except httpx.HTTPError as error:
            return type(error).__name__
        else:
            return "complete"
        finally:
            await self._client.aclose()


async def next_code(socket: WebSocketClient) -> int:
    """The close code that the server sends."""
    while isinstance(received := await socket.receive(), str):
        pass
    await socket.close()
    return received


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_live_connections_are_closed_first_and_requests_finish(tmp_path: Path, workers: str) -> None:
    with server(tmp_path, "--workers", workers) as served:
        streams = [await Stream.open(f"{served.url}/test/{name}") for name in ("events", "session-events", "flood")]
        sockets = [await WebSocketClient.connect(f"{served.url}/test/socket/{kind}", "") for kind in ("echo", "deaf", "ticks")]
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            assert (await client.get("/health/live")).status_code == 200  # the connection stays open, idle
            visits = [client.post("/test/visit") for _ in range(20)]
            assert {(await answer).status_code for answer in asyncio.as_completed(visits)} == {201}
            slow = await slow_request(served, client)
            stopping = asyncio.create_task(served.stop())
            assert [await next_code(socket) for socket in sockets] == [1012, 1012, 1012]
            assert [await stream.end() for stream in streams] == ["complete"] * 3
            assert (await slow).text == "done"
        took, out = await stopping
    assert took < KILL_SECONDS, out
    assert "Traceback" not in out, out
    assert served.audited("session.created") == 20


async def test_responses_that_never_end_are_aborted_in_time(tmp_path: Path) -> None:
    with server(tmp_path) as served:
        lines = await Stream.open(f"{served.url}/test/lines")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        writer.write(b"GET /test/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readexactly(12)  # read no more: the server waits for this client
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            stuck = asyncio.create_task(client.get("/test/stuck"))
            await client.post("/test/visit")
            stopping = asyncio.create_task(served.stop())
            assert (await stuck).status_code == 503
        assert await lines.end() == "RemoteProtocolError"
        took, _ = await stopping
        writer.close()
    assert took < SUPERVISOR_SECONDS
    assert served.audited("session.created") == 1


async def test_half_sent_requests_are_not_waited_for(tmp_path: Path) -> None:
    with server(tmp_path) as served:
        head = b"PATCH /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        begun = [b"G", head[:30], head + b"{"]
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            await client.post("/test/visit")
            writers = [(await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2])))[1] for _ in range(30)]
            for number, writer in enumerate(writers):
                writer.write(begun[number % 3])
                await writer.drain()
            slow = await slow_request(served, client)  # by now the others have arrived
            stopping = asyncio.create_task(served.stop())
            assert (await slow).text == "done"
        took, out = await stopping
        for writer in writers:
            writer.close()
    assert took < KILL_SECONDS, out
    assert served.audited("session.created") == 1


async def test_several_signals_stop_it_once(tmp_path: Path) -> None:
    with server(tmp_path) as served:
        stream = await Stream.open(f"{served.url}/test/events")
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            await client.post("/test/visit")
            slow = await slow_request(served, client)
            stopping = asyncio.create_task(served.stop(*[signal.SIGINT, signal.SIGINT, signal.SIGTERM] * 3))
            assert (await slow).text == "done"
        assert await stream.end() == "complete"
        took, out = await stopping
    assert took < KILL_SECONDS, out
    assert served.audited("session.created") == 1


async def test_a_frozen_store_does_not_delay_the_stop(tmp_path: Path) -> None:
    with running_redis(needed_valkey()) as store, server(tmp_path, SESSION_STORE=store.url) as served:
        stream = await Stream.open(f"{served.url}/test/session-events")
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            await client.post("/test/visit")
            cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
            store.freeze()
            waiting = asyncio.create_task(client.post("/test/visit", headers=cookie))
            await asyncio.sleep(0.2)
            stopping = asyncio.create_task(served.stop())
            assert (await waiting).status_code == 503
        assert await stream.end() == "complete"
        took, out = await stopping
        store.thaw()
    assert took < KILL_SECONDS, out
    assert served.audited("session.created") == 1


async def test_a_frozen_database_does_not_delay_the_stop_and_its_entries_are_logged(tmp_path: Path) -> None:
    with ExitStack() as stack:
        database = stack.enter_context(postgres_server())
        await asyncio.to_thread(migrate, database.url)
        served = stack.enter_context(
            server(tmp_path, DATABASE_URL=database.url, SESSION_STORE=database.url, APP_LOG_LEVEL="WARNING")
        )
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            await client.post("/test/visit")
            cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
            assert (await client.get("/health/ready")).status_code == 200
            database.freeze()
            waiting = asyncio.create_task(client.post("/test/visit", headers=cookie))
            refused = await client.get("/auth/callback?state=invented&code=x")
            assert refused.status_code in {400, 503}
            stopping = asyncio.create_task(served.stop())
            assert (await waiting).status_code == 503
        took, out = await stopping
        database.thaw()
    assert took < SUPERVISOR_SECONDS
    assert "audit entries lost" in out


async def test_websockets_alone_are_closed_with_the_code_of_a_restart(tmp_path: Path) -> None:
    with server(tmp_path) as served:
        kinds = ["echo", "deaf", "ticks"] * 4
        sockets = [await WebSocketClient.connect(f"{served.url}/test/socket/{kind}", "") for kind in kinds]
        stopping = asyncio.create_task(served.stop())
        assert [await next_code(socket) for socket in sockets] == [1012] * len(kinds)
        took, out = await stopping
    assert took < KILL_SECONDS, out
