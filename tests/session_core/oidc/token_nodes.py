"""Processes of the application that share a store and a provider, and a browser that talks to all of them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from session_core import SystemClock
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import GET_PAGE, FakeOp
from tests.session_core.oidc.op_server import serving
from tests.support.child_process import end_with_parent

ROOT = Path(__file__).resolve().parents[3]

on_valkey = pytest.mark.parametrize("store", ["valkey"], indirect=True)
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("store", ["postgres"], indirect=True)


class Node:
    """A process that serves the application."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.client = httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=50))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def token(self, refused: str | None = None) -> tuple[int, str]:
        answer = await self.client.get("/token-now", params={"refused": refused} if refused else {})
        return answer.status_code, answer.text if answer.status_code == 200 else ""

    async def subject(self) -> str | None:
        return (await self.client.get("/read")).json()["subject"]  # type: ignore[no-any-return]

    async def waiting(self) -> int:
        return int((await self.client.get("/waiting")).text)


class Nodes:
    """A provider and processes that share a store; the logged-in browser talks to all of them."""

    def __init__(self, op: FakeOp, port: int, store: str, stack: AsyncExitStack) -> None:
        self.op = op
        self._port = port
        self._store = store
        self._stack = stack
        self._cookies: dict[str, str] = {}

    async def start(self, **environment: object) -> Node:
        given = {f"TEST_{name.upper()}": str(value) for name, value in environment.items()}
        ours = {"TEST_STORE": self._store, "TEST_OP": str(self._port), "PYTHONPATH": str(ROOT), **given}
        process = subprocess.Popen(  # noqa: ASYNC220 - forks at once, and waits for nothing
            [sys.executable, "-m", "uvicorn", "--port", "0", "--no-access-log", "tests.session_core.oidc.token_app:app"],
            cwd=ROOT,
            env={**os.environ, **ours},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        self._stack.callback(_end, process)
        url = await asyncio.to_thread(_address, process)
        node = Node(process, url)
        self._stack.push_async_callback(node.client.aclose)
        node.client.cookies.update(self._cookies)
        return node

    async def pair(self, **environment: object) -> tuple[Node, Node]:
        """Start a process in which the user logs in, and another one."""
        one = await self.start(**environment)
        await self.log_in(one)
        return one, await self.start(**environment)

    async def redeeming(self, node: Node) -> tuple[asyncio.Task[tuple[int, str]], asyncio.Event]:
        """Ask a process for a token until it redeems; return that request, and what makes the provider respond."""
        asked, go_on = self.op.hold()
        request = asyncio.create_task(node.token())
        await asked.wait()
        return request, go_on

    async def log_in(self, node: Node, **answer: Any) -> None:
        """Log in at `node` with an access token that expires at once; every node gets the cookie from then on."""
        self.op.answer = {"expires_in": 0, **answer}
        started = await node.client.get("/auth/login", headers=GET_PAGE)
        assert started.status_code == 303, started.text
        back = urlsplit(self.op.authorize(started.headers["location"]))
        cookies = {"cookie": "; ".join(f"{name}={value}" for name, value in node.client.cookies.items())}
        done = await node.client.get(f"{back.path}?{back.query}", headers={**GET_PAGE, **cookies})
        assert done.status_code == 303, done.text
        self._cookies = {"session-8000": done.cookies["session-8000"]}
        node.client.cookies = httpx.Cookies(self._cookies)
        self.op.answer = {}

    def redemptions(self) -> Counter[str]:
        """The number of uses of each refresh token."""
        forms = [dict(parse_qsl(call.content.decode())) for call in self.op.calls if call.url.path == "/token"]
        return Counter(form["refresh_token"] for form in forms if "refresh_token" in form)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
            return found[1]
    raise AssertionError(said)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if await result if asyncio.iscoroutine(result) else result:
            return
        assert time.monotonic() < deadline, "it does not come about"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def nodes_on(store: str) -> AsyncIterator[Nodes]:
    op = FakeOp(FakeClock(SystemClock().now()))
    op.refreshable = True
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(op))
        yield Nodes(op, port, store, stack)


async def all_waiting(one: Node, two: Node, count: int) -> bool:
    return await one.waiting() + await two.waiting() == count
