"""The application as two real processes on one store, with a provider that counts their requests."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.app.processes import clean_environment
from tests.support.application_state import KEY, SECRET
from tests.support.hostile_op import http_server as faults
from tests.support.hostile_op.browser import Browser, Page
from tests.support.hostile_op.grants import CLIENT_ID, CLIENT_SECRET
from tests.support.hostile_op.misbehaviour import Misbehaviour
from tests.support.hostile_op.provider import HostileOp
from tests.support.ports import free_ports

pytestmark = pytest.mark.anyio

SERVE = (sys.executable, "-c", "import sys; from app.cli import serve; sys.exit(serve())")


class Processes:
    """Two servers; `urls` are their addresses, the first being the public one."""

    def __init__(self, directory: Path, op: HostileOp) -> None:
        ports = free_ports(2)
        self.urls = [f"http://localhost:{port}" for port in ports]
        environment = {
            **clean_environment(), "PUBLIC_URL": self.urls[0], "SESSION_SECRETS": SECRET, "SESSION_ENCRYPTION_KEYS": KEY,
            "SESSION_STORE": f"sqlite+aiosqlite:///{directory}/app.db", "DATABASE_URL": f"sqlite+aiosqlite:///{directory}/app.db",
            "OIDC_ISSUER": op.issuer, "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "OIDC_HTTP_TIMEOUT_SECONDS": "10",
        }  # fmt: skip
        self.log = (directory / "serve.log").open("wb")
        self.servers = [
            subprocess.Popen([*SERVE, "--port", str(port)], cwd=directory, env=environment, stdout=self.log, stderr=self.log)
            for port in ports
        ]

    def stop(self) -> None:
        for server in self.servers:
            if server.poll() is None:
                server.kill()
            server.wait()
        self.log.close()

    async def are_up(self, browser: Browser) -> None:
        for url, server in zip(self.urls, self.servers, strict=True):
            deadline = time.monotonic() + 60
            while True:
                assert server.poll() is None
                assert time.monotonic() < deadline
                # Connections are refused until the server listens.
                with suppress(httpx.TransportError):
                    if (await browser.tab().open(f"{url}/health/ready")).status == 200:
                        break
                await asyncio.sleep(0.05)


@asynccontextmanager
async def two_processes(directory: Path) -> AsyncIterator[tuple[HostileOp, Processes, Browser]]:
    async with HostileOp(time.time) as op:
        processes, browser = Processes(directory, op), Browser(time.time)
        try:
            await processes.are_up(browser)
            yield op, processes, browser
        finally:
            processes.stop()
            await browser.close()


def redemptions(op: HostileOp) -> list[str]:
    return [call.form["refresh_token"] for call in op.calls if call.form.get("grant_type") == "refresh_token"]


async def expired(op: HostileOp) -> None:
    """Wait until the token of the newest login, which is valid for one second, has expired."""
    until = op.grants.all[-1].auth_time + 2.1
    while time.time() < until:  # noqa: ASYNC110 - the processes have real clocks
        await asyncio.sleep(0.05)


async def userinfo(browser: Browser, url: str) -> Page:
    return await browser.tab(f"{url}/").fetch("/api/userinfo")


@pytest.mark.attack("35")
async def test_two_processes_redeem_once_and_recover_when_one_is_killed(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as (op, processes, browser):
        first, second = processes.urls
        op.expires_in = 1
        assert (await browser.tab(f"{first}/").follow("/auth/login")).status == 200
        op.expires_in = 3600
        await expired(op)
        # Ten requests to each, all with the expired token.
        pages = await asyncio.gather(*(userinfo(browser, url) for url in (first, second) for _ in range(10)))
        assert {page.status for page in pages} == {200}
        assert len(redemptions(op)) == 1
        used = {call.headers["authorization"] for call in op.calls[-20:] if call.path == "/userinfo"}
        assert len(used) == 1

        # Again, with a provider that does not respond; the requesting process is killed while it waits.
        op.expires_in = 1
        again = Browser(time.time)
        assert (await again.tab(f"{first}/").follow("/auth/login")).status == 200
        op.grants.all[-1].after = Misbehaviour(token_fault=faults.hang)
        op.expires_in = 3600
        await expired(op)
        waiting = asyncio.create_task(userinfo(again, first))
        deadline = time.monotonic() + 60
        while len(redemptions(op)) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        os.kill(processes.servers[0].pid, signal.SIGKILL)
        op.grants.all[-1].after = None
        with pytest.raises(httpx.TransportError):
            await waiting
        deadline = time.monotonic() + 60
        while (page := await userinfo(again, second)).status not in {200, 401}:
            # Until the dead process's lease ends: a response in time, and the session is kept.
            assert page.status in {502, 503, 504}
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        # New tokens, or at worst a new login, but never stuck.
        if page.status == 401:
            assert (await again.tab(f"{second}/").fetch("/api/me")).status == 401
        await again.close()


RAW = {
    "2 MB of state": b"GET /auth/callback?state=" + b"A" * 2_000_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "64 KB header": b"GET /api/me HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"a" * 65_536 + b"\r\n\r\n",
    "9 KB cookie": b"GET /api/me HTTP/1.1\r\nhost: localhost\r\ncookie: session=" + b"a" * 9_216 + b"\r\n\r\n",
    "500 cookies": b"GET /api/me HTTP/1.1\r\nhost: localhost\r\ncookie: " + b"session=x; " * 500 + b"a=b\r\n\r\n",
    "a bare CR in the target": b"GET /auth/login?next=/\rx HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "NUL in the target": b"GET /auth/callback?state=\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "encoded CRLF": b"GET /auth/login?next=/%0d%0aset-cookie:x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "encoded NUL": b"GET /auth/callback?state=%00&code=%00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a lone surrogate": b"GET /auth/callback?state=%ed%a0%80&code=x HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "no UTF-8": b"GET /auth/callback?state=\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a folded cookie": b"GET /api/me HTTP/1.1\r\nhost: localhost\r\ncookie: session=\r\n x\r\n\r\n",
}


async def raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(60):
            writer.write(request)
            await writer.drain()
            return (await reader.read(65_536)).partition(b"\r\n\r\n")[0]
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.attack("1")
@pytest.mark.attack("54")
@pytest.mark.attack("58")
async def test_raw_bytes_that_no_browser_sends_are_refused(tmp_path: Path) -> None:
    """Against the production server: refused or anonymous, no 500, no header chosen by the attacker."""
    async with two_processes(tmp_path) as (op, processes, browser):
        port = int(processes.urls[0].rpartition(":")[2])
        for name, request in RAW.items():
            answer = await raw(port, request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            # A server may also close the connection when the bytes are not HTTP.
            status = int(answer.split(b" ")[1]) if answer else 400
            assert 300 <= status < 500, name
            assert b"x=1" not in answer.lower().replace(b"%0aset-cookie:x=1", b""), name
            assert b"session=" not in answer, name
        assert op.count("/token") == 0
        assert (await browser.tab(f"{processes.urls[0]}/").fetch("/api/me")).status == 401
