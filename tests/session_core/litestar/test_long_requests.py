"""Long requests: uploads are saved, polls do not extend a session, and responses of ended sessions are withheld."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from litestar import Litestar, Request, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody

from session_core import Session, StoreUnavailableError, Timeouts, session_of
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, AppSession, client_of, make_app, plugin_in

pytestmark = pytest.mark.anyio
IDLE = 100


class Waiting:
    """Handlers that wait until the test releases them."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()

    async def wait(self) -> None:
        self.arrived.set()
        await self.go_on.wait()


held: list[Waiting] = []


async def current() -> Waiting:
    return held[-1]


WAITS = {"waiting": Provide(current)}


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    held.append(Waiting())
    yield held[-1]
    held.clear()


@get("/poll", dependencies=WAITS)
async def poll(session: Session[AppSession], waiting: NamedDependency[Waiting]) -> str:
    await waiting.wait()
    return f"private: {session.data.note}"


@post("/work", dependencies=WAITS)
async def work(session: Session[AppSession], waiting: NamedDependency[Waiting]) -> None:
    await waiting.wait()
    session.data.note = "done"


@post("/upload")
async def upload(session: Session[AppSession], request: Request[Any, Any, Any]) -> None:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    session.data.visits = size


@post("/upload-body")
async def upload_body(session: Session[AppSession], data: JSONBody[list[int]]) -> None:
    session.data.visits = len(data)


@post("/upload-first", opt={"session": True})
async def upload_first(request: Request[Any, Any, Any]) -> None:
    body = await request.body()
    (await session_of(request)).data.visits = len(body)


@get("/status", opt={"touch": False})
async def status(session: Session[AppSession]) -> dict[str, Any]:
    return {"exists": session.exists, "until": session.idle_expires_at}


@get("/status-poll", opt={"touch": False}, dependencies=WAITS)
async def status_poll(session: Session[AppSession], waiting: NamedDependency[Waiting]) -> str:
    await waiting.wait()
    return "still here"


def build(clock: FakeClock, **options: Any) -> Litestar:
    timeouts = Timeouts(idle=IDLE, absolute=100 * IDLE, touch_interval=10)
    return make_app(poll, work, upload, upload_body, upload_first, status, status_poll, clock=clock, timeouts=timeouts, **options)


@pytest.mark.parametrize("path", ["/upload", "/upload-body", "/upload-first"])
async def test_an_upload_that_outlasts_the_idle_timeout_is_saved(path: str, clock: FakeClock) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"["
        for _ in range(5):
            clock.advance(seconds=0.4 * IDLE)
            yield b"1,"
        yield b"1]"

    async with client_of(build(clock)) as client:
        await client.patch("/assign", json={"note": "before"})
        clock.advance(seconds=0.9 * IDLE)  # it started just before the timeout
        answer = await client.post(path, content=body(), headers={"content-type": "application/json"})
        assert answer.status_code == 201
        data = (await client.get("/read")).json()["data"]
        assert (data["note"], data["visits"] > 1) == ("before", True)


@pytest.mark.parametrize("path", ["/work", "/poll"])
async def test_a_slow_handler_keeps_its_session_alive(path: str, clock: FakeClock, waiting: Waiting) -> None:
    app = build(clock, close_connections="never")
    async with client_of(app) as client:
        await client.post("/visit")
        clock.advance(seconds=0.9 * IDLE)
        request = asyncio.create_task(client.request("POST" if path == "/work" else "GET", path))
        await waiting.arrived.wait()
        for _ in range(8):
            clock.advance(seconds=0.25 * IDLE)
            await plugin_in(app).application.services.under_way.extend()
        waiting.go_on.set()
        assert (await request).status_code < 300
        assert (await client.get("/read")).json()["exists"] is True


async def test_a_timer_keeps_the_session_alive(virtual_time: None) -> None:
    """During a request of two idle timeouts."""
    timeouts = Timeouts(idle=1, absolute=1000, touch_interval=0)
    app = make_app(post("/work-for-real")(_work_for_real), timeouts=timeouts, close_connections="never")
    under_way = plugin_in(app).application.services.under_way
    async with client_of(app) as client:
        await client.post("/visit")
        assert (await client.post("/work-for-real")).status_code == 201
        assert (await client.get("/read")).json()["data"]["note"] == "done"
    under_way.close()
    assert under_way._requests == {}
    assert under_way._timers == {}


async def _work_for_real(session: Session[AppSession]) -> None:
    store = session._lifecycle.store
    until = asyncio.get_running_loop().time() + 2
    while asyncio.get_running_loop().time() < until:  # as a handler that awaits a slow service
        await asyncio.sleep(0.05)
        assert session.key is not None
        assert await store.load(session.key) is not None
    session.data.note = "done"


def test_no_timer_remains_without_requests() -> None:
    async def once() -> None:
        loop = asyncio.get_running_loop()
        app = make_app()
        async with client_of(app) as client:
            await client.post("/visit")
        under_way = plugin_in(app).application.services.under_way
        assert list(under_way._timers) == [loop]
        under_way._look(loop)
        assert under_way._timers == {}

    asyncio.run(once())


async def test_a_finished_request_is_forgotten(clock: FakeClock) -> None:
    app = build(clock)
    async with client_of(app) as client:
        for path in ("/read", "/fails", "/nowhere"):
            await client.get(path)
    assert plugin_in(app).application.services.under_way._requests == {}


async def test_the_absolute_timeout_still_applies(clock: FakeClock, waiting: Waiting) -> None:
    app = build(clock)
    async with client_of(app) as client:
        await client.post("/visit")
        request = asyncio.create_task(client.post("/work"))
        await waiting.arrived.wait()
        for _ in range(250):
            clock.advance(seconds=0.45 * IDLE)
            await plugin_in(app).application.services.under_way.extend()
        waiting.go_on.set()
        assert (await request).status_code == 401


async def test_a_polled_route_does_not_extend_the_session(clock: FakeClock) -> None:
    async with client_of(build(clock)) as client:
        await client.post("/visit")
        until = (await client.get("/status")).json()["until"]
        for _ in range(9):
            clock.advance(seconds=0.1 * IDLE)
            assert (await client.get("/status")).json() == {"exists": True, "until": until}
        clock.advance(seconds=0.2 * IDLE)
        assert (await client.get("/status")).json() == {"exists": False, "until": None}


async def test_a_long_poll_that_opted_out_does_not_extend_the_session(clock: FakeClock, waiting: Waiting) -> None:
    app = build(clock)
    async with client_of(app) as client:
        await client.post("/visit")
        request = asyncio.create_task(client.get("/status-poll"))
        await waiting.arrived.wait()
        for _ in range(5):
            clock.advance(seconds=0.25 * IDLE)
            await plugin_in(app).application.services.under_way.extend()
        waiting.go_on.set()
        assert (await request).status_code == 401
        assert (await client.get("/read")).json()["exists"] is False


async def _end(app: Litestar, how: str, browser: Any) -> None:
    sessions = plugin_in(app).sessions
    if how == "revoked":
        await sessions.revoke_all(ALICE)
    elif how == "logged out":
        await browser.post("/logout")
    elif how == "another user":
        await browser.post("/login/bob")
    elif how == "operator":
        [summary] = await sessions.list_for(ALICE)
        await sessions.revoke_any(summary.handle)
    else:
        await sessions.end_user(ALICE)


@pytest.mark.parametrize("how", ["revoked", "logged out", "another user", "operator", "provider"])
@pytest.mark.parametrize("path", ["/poll", "/work"])
async def test_a_long_request_of_an_ended_session_gets_no_private_response(
    how: str, path: str, clock: FakeClock, waiting: Waiting
) -> None:
    app = build(clock)
    async with client_of(app) as client, client_of(app) as same_browser:
        await client.post("/login/alice")
        await client.patch("/assign", json={"note": "secret"})
        same_browser.cookies.update(client.cookies)
        request = asyncio.create_task(client.request("POST" if path == "/work" else "GET", path))
        await waiting.arrived.wait()
        clock.advance(seconds=5)
        await _end(app, how, same_browser)
        waiting.go_on.set()
        answer = await request
        assert (answer.status_code, answer.json()["code"]) == (401, "session_gone")
        assert "secret" not in answer.text
        assert "set-cookie" not in answer.headers


async def test_a_long_request_continues_after_a_regeneration(clock: FakeClock, waiting: Waiting) -> None:
    app = build(clock)
    async with client_of(app) as client, client_of(app) as same_browser:
        await client.post("/login/alice")
        same_browser.cookies.update(client.cookies)
        request = asyncio.create_task(client.get("/poll"))
        await waiting.arrived.wait()
        clock.advance(seconds=5)
        await same_browser.post("/regenerate")
        waiting.go_on.set()
        assert (await request).status_code == 200


async def test_a_long_request_gets_503_while_the_store_is_down(
    clock: FakeClock, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(clock)
    async with client_of(app) as client:
        await client.post("/login/alice")
        request = asyncio.create_task(client.get("/poll"))
        await waiting.arrived.wait()
        clock.advance(seconds=5)

        async def down(*_: Any) -> Any:
            raise StoreUnavailableError

        monkeypatch.setattr(plugin_in(app).store.inner, "load", down)
        waiting.go_on.set()
        assert (await request).status_code == 503


async def test_an_ordinary_request_calls_the_store_once(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    app = build(clock)
    loads: list[str] = []
    async with client_of(app) as client:
        await client.post("/visit")
        store = plugin_in(app).store.inner
        load = store.load

        async def counted(key: str) -> Any:
            loads.append(key)
            return await load(key)

        monkeypatch.setattr(store, "load", counted)
        assert (await client.get("/read")).status_code == 200
        assert len(loads) == 1
        assert (await client.patch("/assign", json={"note": "kept"})).status_code == 200
    assert len(loads) == 2
