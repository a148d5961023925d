"""A FastAPI application without Litestar installed: login at the embedded provider, two processes, a WebSocket."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from auth_demo.op.app import create_op
from auth_demo.op.settings import OpSettings, RegisteredClient
from auth_demo.visitor import follow, log_in, new_client
from tests.app.processes import clean_environment
from tests.support.child_process import end_with_parent
from tests.support.environments import ROOT, make_environment, run_in
from tests.support.ports import free_port
from tests.support.server_process import wait_for_answer
from tests.support.thread_server import listen, served
from tests.support.websocket_client import WebSocketClient

pytestmark = pytest.mark.anyio

REQUIRED = ("fastapi", "uvicorn", "websockets", "msgspec", "cryptography", "structlog", "authlib", "joserfc", "httpx2")
SERVE = """
import importlib.util, sys, uvicorn
assert importlib.util.find_spec("litestar") is None
from examples.fastapi_login import create_app
uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


class Served(NamedTuple):
    one: str
    two: str
    """The same application in another process."""
    issuer: str


@contextmanager
def process(environment: Path, port: int, **settings: str) -> Iterator[str]:
    paths = f"import sys; sys.path[:0] = [{str(environment)!r}, {str(ROOT)!r}]"
    running = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", paths + SERVE, str(port)],
        env={**clean_environment(), **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )
    try:
        wait_for_answer(running, f"http://127.0.0.1:{port}/public")
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(30)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("fastapi"), *REQUIRED)


@pytest.fixture(scope="module")
def app(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    listening, op_port = listen()
    ports = free_port(), free_port()
    url, issuer, secret = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{op_port}", secrets.token_urlsafe(32)
    client = RegisteredClient(
        client_id="fastapi",
        client_secret=secret,
        redirect_uris=(f"{url}/auth/callback",),
        post_logout_redirect_uris=(f"{url}/",),
        backchannel_logout_uri=f"{url}/auth/backchannel-logout",
    )
    settings = {
        "PUBLIC_URL": url,
        "SESSION_STORE": f"sqlite:///{tmp_path_factory.mktemp('store') / 'sessions.db'}",
        "SESSION_SECRETS": secrets.token_urlsafe(32),
        "SESSION_ENCRYPTION_KEYS": secrets.token_urlsafe(32),
        "OIDC_ISSUER": issuer,
        "OIDC_CLIENT_ID": "fastapi",
        "OIDC_CLIENT_SECRET": secret,
    }
    with ExitStack() as stack:
        stack.enter_context(served(create_op(OpSettings(issuer=issuer, clients=(client,))), listening))
        one, two = (stack.enter_context(process(environment, port, **settings)) for port in ports)
        yield Served(one, two, issuer)


@pytest.fixture
async def browser(app: Served) -> AsyncIterator[httpx2.AsyncClient]:
    async with new_client() as client:
        yield client


def cookie_of(browser: httpx2.AsyncClient) -> str:
    return "; ".join(f"{each.name}={each.value}" for each in browser.cookies.jar if each.name.startswith("session"))


async def test_a_user_logs_in_and_out_at_the_provider(app: Served, browser: httpx2.AsyncClient) -> None:
    assert (await browser.get(f"{app.one}/account")).status_code == 401
    await log_in(browser, app.one, app.issuer, "alice")
    assert (await browser.get(f"{app.one}/account")).json() == {"name": "Alice", "subject": "alice"}
    status = await browser.get(f"{app.two}/auth/session")
    assert status.json()["authenticated"] is True
    assert 0 < status.json()["expires_in"] <= 3600
    assert (await browser.get(f"{app.one}/admin")).status_code == 403
    assert (await browser.post(f"{app.one}/password")).status_code == 200
    before = cookie_of(browser)
    left = await browser.post(f"{app.one}/auth/logout", headers={"accept": "application/json"})
    assert left.json()["logout_url"].startswith(app.issuer)
    assert (await browser.get(f"{app.one}/account", headers={"cookie": before})).status_code == 401
    assert (await browser.get(f"{app.one}/auth/session")).status_code == 401


async def test_two_processes_keep_every_increment(app: Served, browser: httpx2.AsyncClient) -> None:
    await browser.post(f"{app.one}/visit")
    headers = {"cookie": cookie_of(browser)}
    async with httpx2.AsyncClient(trust_env=False, timeout=60, headers=headers) as client:
        answers = await asyncio.gather(*(client.post(f"{url}/visit") for url in (app.one, app.two) for _ in range(100)))
        assert [answer.status_code for answer in answers] == [200] * 200
        assert (await client.post(f"{app.two}/visit")).json() == 202


async def test_a_websocket_closes_when_its_session_ends(app: Served, browser: httpx2.AsyncClient) -> None:
    with pytest.raises(ConnectionRefusedError):
        await WebSocketClient.connect(f"{app.two}/echo", "")
    await log_in(browser, app.one, app.issuer, "bob")
    socket = await WebSocketClient.connect(f"{app.two}/echo", cookie_of(browser))
    socket.send("hello")
    assert await socket.receive() == "Bob: hello"
    await browser.post(f"{app.one}/auth/logout")
    async with asyncio.timeout(10):
        assert await socket.receive() == 4401
    await socket.close()


async def test_a_logout_at_the_provider_ends_its_other_sessions(app: Served, browser: httpx2.AsyncClient) -> None:
    await log_in(browser, app.one, app.issuer, "bob")
    async with new_client() as other:
        for cookie in browser.cookies.jar:
            if cookie.name.startswith("op_"):  # the same provider session, without a local one
                other.cookies.jar.set_cookie(cookie)
        assert (await follow(other, f"{app.one}/auth/login?next=/account")).json()["subject"] == "bob"
        socket = await WebSocketClient.connect(f"{app.two}/echo", cookie_of(other))
        await follow(browser, f"{app.one}/auth/logout", method="POST")
        async with asyncio.timeout(10):
            assert await socket.receive() == 4401
        await socket.close()
        assert (await other.get(f"{app.one}/account")).status_code == 401


async def test_requests_of_other_sites_are_refused(app: Served, browser: httpx2.AsyncClient) -> None:
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    refused = await browser.post(f"{app.one}/visit", headers=foreign)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    assert (await browser.post(f"{app.one}/auth/logout", headers=foreign)).status_code == 403
    # A provider's message is cross-site and reads no cookie.
    answer = await browser.post(f"{app.one}/auth/backchannel-logout", data={"logout_token": "x"}, headers=foreign)
    assert (answer.status_code, answer.headers["cache-control"]) == (400, "no-store")
    assert (await browser.get(f"{app.one}/auth/backchannel-logout")).status_code == 405
    assert (await browser.head(f"{app.one}/auth/callback?code=x&state=y")).status_code == 200
    assert (await browser.head(f"{app.one}/auth/session")).status_code == 401
    assert (await browser.get(f"{app.one}/auth/nowhere")).status_code == 404
    assert (await browser.get(f"{app.one}/auth/callback/other")).status_code == 404


async def test_a_browser_is_sent_to_the_login(app: Served, browser: httpx2.AsyncClient) -> None:
    page = {"accept": "text/html,application/xhtml+xml", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    answer = await browser.get(f"{app.one}/account?tab=2", headers=page)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/auth/login?next=%2Faccount%3Ftab%3D2")
    failed = await browser.get(f"{app.one}/auth/callback?code=x&state=y")
    assert (failed.status_code, failed.headers["referrer-policy"]) == (400, "no-referrer")


async def test_a_route_without_a_session_sets_no_cookie(app: Served, browser: httpx2.AsyncClient) -> None:
    answer = await browser.get(f"{app.one}/public")
    assert "set-cookie" not in answer.headers
    assert "vary" not in answer.headers


PLAIN = """
import asyncio, importlib.util, json
import msgspec
assert importlib.util.find_spec("starlette") is None and importlib.util.find_spec("litestar") is None
from session_core import SessionConfig
from session_core.asgi.middleware import SCOPE_KEY
from session_core.starlette.middleware import SessionMiddleware, StarletteSessions

class Data(msgspec.Struct):
    visits: int = 0

def bump(data):
    data.visits += 1

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{name}.complete"})
        return
    session = await scope[SCOPE_KEY].load()
    data = await session.update(bump)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(data.visits).encode()})

async def call(served, *headers):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": list(headers), "client": None}
    await served(scope, receive, send)
    return sent

async def main():
    sessions = StarletteSessions(SessionConfig(Data, secrets=["x" * 32], store="sqlite:///plain.db"))
    served = SessionMiddleware(app, sessions)
    steps, said = asyncio.Queue(), asyncio.Queue()
    lifespan = asyncio.create_task(served({"type": "lifespan"}, steps.get, said.put))
    await steps.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    start, answer = await call(served)
    cookie = dict(start["headers"])[b"set-cookie"].partition(b";")[0]
    _, again = await call(served, (b"cookie", cookie))
    refused, _ = await call(served, (b"origin", b"https://evil.example"))
    await steps.put({"type": "lifespan.shutdown"})
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await lifespan
    closed, _ = await call(served, (b"cookie", cookie))
    print(json.dumps([answer["body"].decode(), again["body"].decode(), refused["status"], closed["status"]]))

asyncio.run(main())
"""


def test_a_plain_asgi_application_needs_neither_framework(tmp_path: Path) -> None:
    plain = make_environment(tmp_path, "msgspec", "cryptography", "structlog")
    result = run_in(plain, PLAIN)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == ["1", "2", 403, 503]


def test_a_missing_middleware_is_named(environment: Path) -> None:
    code = """
import asyncio
from session_core.starlette import get_session
from starlette.requests import HTTPConnection
asyncio.run(get_session(HTTPConnection({"type": "http", "headers": []})))
"""
    assert "app.add_middleware(SessionMiddleware, sessions=sessions)" in run_in(environment, code, timeout=30).stderr
