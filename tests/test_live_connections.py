"""Open WebSockets and streams end with their session, and with nothing else; in one process, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import httpx
import pytest
from litestar import Litestar, Request, WebSocket, asgi, get, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.response import ServerSentEvent, Stream
from litestar.types import Receive, Scope, Send

from session_core import ConfigurationError, Event, Session, StoreUnavailableError, Timeouts
from session_core import live_connections as module
from session_core.middleware import session_of
from session_core.stores.base import SessionStore
from session_core.stores.feed import Trace
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.support import ALICE, AppSession, Recorder, client_of, make_app, make_config, plugin_in

pytestmark = pytest.mark.anyio
DEADLINE = 5.0
BEAT = 0.02


def bump(data: AppSession) -> None:
    data.visits += 1


@websocket("/echo")
async def echo(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    await socket.accept()
    async for text in socket.iter_data("text"):
        await socket.send_text(text if text != "count" else str((await session.update(bump)).visits))
    socket.app.state["left"] = "echo"


@websocket("/ticks")
async def ticks(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    """Speaks, and never listens."""
    await socket.accept()
    try:
        while True:
            await socket.send_text("tick")
            await asyncio.sleep(0.001)
    except WebSocketDisconnect as error:
        socket.app.state["left"] = error.code


@websocket("/late", opt={"session": True})
async def late(socket: WebSocket[Any, Any, Any]) -> None:
    """Asks for the session after it was accepted."""
    await socket.accept()
    await session_of(socket)
    async for text in socket.iter_data("text"):
        await socket.send_text(text)


@websocket("/deaf")
async def deaf(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
    """Neither speaks nor listens."""
    await socket.accept()
    try:
        await asyncio.Event().wait()
    finally:
        socket.app.state["left"] = "deaf"


@get("/events")
async def events(session: Session[AppSession]) -> ServerSentEvent:
    async def generate() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            STOPPED.append("events")

    return ServerSentEvent(generate())


@get("/silent")
async def silent(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    return Stream(generate())


@get("/flood")
async def flood(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    return Stream(generate())


@get("/sized")
async def sized(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    return Stream(generate(), headers={"content-length": "2"})


@get("/short")
async def short(session: Session[AppSession]) -> Stream:
    async def generate() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x"

    return Stream(generate())


@asgi("/raw", opt={"session": True}, copy_scope=True)
async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Streams without ever asking whether the client is there."""
    await session_of(cast("Any", type("Connection", (), {"scope": scope})))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.001)


STOPPED: list[str] = []
HANDLERS = [echo, ticks, late, deaf, events, silent, flood, sized, short, raw]


class Wire:
    """One connection, as a server would hold it."""

    def __init__(self, app: Litestar, path: str, client: httpx.AsyncClient, *, kind: str = "http") -> None:
        self.sent: list[dict[str, Any]] = []
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if kind == "websocket":
            self._incoming.put_nowait({"type": "websocket.connect"})
        else:
            self._incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        cookie = f"session={client.cookies['session']}".encode() if "session" in client.cookies else b""
        scope: dict[str, Any] = {
            "type": kind, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [(b"cookie", cookie)],
            "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
            "asgi": {"version": "3.0", "spec_version": "2.3"}, "extensions": {}, "root_path": "",
        }  # fmt: skip
        if kind == "http":
            scope["method"] = "GET"
        self.task = asyncio.create_task(cast("Any", app)(scope, self._incoming.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def say(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    @property
    def open(self) -> bool:
        last = self.sent[-1] if self.sent else {}
        return last.get("type") != "websocket.close" and last.get("more_body", True)

    @property
    def heard(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    async def started(self) -> Wire:
        await until(lambda: bool(self.sent))
        return self

    async def closed(self) -> dict[str, Any]:
        """The last message, once the handler has ended too."""
        async with asyncio.timeout(DEADLINE):
            await self.task
        return self.sent[-1]

    async def hang_up(self) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        self._incoming.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(DEADLINE):
            await self.task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.001)


def answered(wire: Wire, text: str) -> bool:
    return wire.heard[-1:] == [text]


def live_app(**options: Any) -> Litestar:
    options.setdefault("poll_interval", 60.0)  # what is told in time is not found by asking
    return make_app(*HANDLERS, **options)


async def open_socket(app: Litestar, client: httpx.AsyncClient, path: str = "/echo") -> Wire:
    return await Wire(app, path, client, kind="websocket").started()


async def open_stream(app: Litestar, client: httpx.AsyncClient, path: str = "/events") -> Wire:
    return await Wire(app, path, client).started()


CLOSED = {"type": "websocket.close", "code": 4401, "reason": "session ended"}
FINISHED = {"type": "http.response.body", "body": b"", "more_body": False}


async def by_logout(app: Litestar, client: httpx.AsyncClient) -> None:
    await client.post("/logout")


async def by_revoke(app: Litestar, client: httpx.AsyncClient) -> None:
    sessions = plugin_in(app).sessions
    [found] = await sessions.list_for(ALICE)
    assert await sessions.revoke(found.handle, identity=ALICE)


async def by_operator(app: Litestar, client: httpx.AsyncClient) -> None:
    sessions = plugin_in(app).sessions
    [found] = await sessions.list_for(ALICE)
    assert await sessions.revoke_any(found.handle)


async def by_revoke_all(app: Litestar, client: httpx.AsyncClient) -> None:
    await client.delete("/sessions")


async def by_provider(app: Litestar, client: httpx.AsyncClient) -> None:
    assert await plugin_in(app).sessions.end_op_session(ALICE.issuer, "op-alice") == 1


async def by_limit(app: Litestar, client: httpx.AsyncClient) -> None:
    async with client_of(app) as other:
        await other.post("/login/alice")


async def by_new_login(app: Litestar, client: httpx.AsyncClient) -> None:
    await client.post("/login/alice")


async def by_other_login(app: Litestar, client: httpx.AsyncClient) -> None:
    await client.post("/login/carol")


WAYS = [by_logout, by_revoke, by_operator, by_revoke_all, by_provider, by_limit, by_new_login, by_other_login]


@pytest.mark.parametrize("end", WAYS, ids=lambda way: way.__name__)
async def test_every_way_of_ending_a_session_closes_its_connections_and_no_others(
    end: Callable[[Litestar, httpx.AsyncClient], Awaitable[None]], clock: FakeClock
) -> None:
    recorder = Recorder()
    app = live_app(max_sessions_per_user=1, on_event=[recorder], clock=clock)
    STOPPED.clear()
    async with client_of(app) as alice, client_of(app) as bob:
        await alice.post("/login/alice")
        await bob.post("/login/bob")
        clock.advance(seconds=1)
        mine = [await open_socket(app, alice), await open_stream(app, alice)]
        others = [await open_socket(app, bob), await open_stream(app, bob)]
        await end(app, alice)
        assert [await wire.closed() for wire in mine] == [CLOSED, FINISHED]
        assert (app.state["left"], STOPPED) == ("echo", ["events"])
        await until(lambda: recorder.names.count("connection.closed") == 2)
        others[0].say("still here")
        await until(lambda: others[0].heard == ["still here"])
        assert all(wire.open for wire in others)
        closed = [event for event in recorder.events if event.name == "connection.closed"]
        assert {(event.reason, event.detail["kind"]) for event in closed} == {("ended", "websocket"), ("ended", "stream")}
        for wire in others:
            await wire.hang_up()


REQUEST: ContextVar[str] = ContextVar("request", default="")


async def test_the_end_of_a_connection_is_told_in_its_own_request_and_not_in_the_first_one() -> None:
    told: list[str] = []

    def listen(event: Event) -> None:
        if event.name == "connection.closed":
            told.append(REQUEST.get())

    app = live_app(on_event=[listen])
    async with client_of(app) as alice, client_of(app) as bob:
        await alice.post("/login/alice")
        await bob.post("/login/bob")
        REQUEST.set("bob's")
        other = await open_socket(app, bob)
        REQUEST.set("alice's")
        socket = await open_socket(app, alice)
        REQUEST.set("the logout")
        await by_logout(app, alice)
        assert await socket.closed() == CLOSED
        await until(lambda: bool(told))
        assert told == ["alice's"]
        await other.hang_up()


async def test_a_regenerated_session_keeps_its_connections_and_their_handlers_go_on() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket, stream = await open_socket(app, client), await open_stream(app, client)
        watch = plugin_in(app).connections
        assert watch is not None
        here = watch.watch()

        def followed(key: str) -> bool:
            return list(here._sessions) == [key]

        for count in range(1, 4):
            before = client.cookies["session"]
            await client.post("/regenerate")
            assert client.cookies["session"] != before
            key = (await plugin_in(app).store.find(_user("alice")))[0].key
            await until(partial(followed, key))
            socket.say("count")
            await until(partial(answered, socket, str(count)))
        await client.post("/logout")
        assert [await socket.closed(), await stream.closed()] == [CLOSED, FINISHED]


def _user(subject: str) -> Any:
    from session_core import Identity
    from session_core.stores.base import SessionIndex

    return SessionIndex(user=Identity(issuer=ALICE.issuer, subject=subject).user_key)


async def test_an_anonymous_session_is_followed_and_closed_by_the_login() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/visit")
        socket = await open_socket(app, client)
        await client.post("/regenerate")
        await client.post("/login/alice")
        assert await socket.closed() == CLOSED


async def behind(app: Litestar, subject: str = "alice") -> None:
    """End a user's sessions as another process would: nobody here is told."""
    store: SessionStore = plugin_in(app).store.inner
    await store.delete_by(_user(subject))


async def test_what_nobody_announced_is_found_by_asking() -> None:
    app = live_app(poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        wires = [await open_socket(app, client), await open_stream(app, client), await open_stream(app, client, "/silent")]
        await behind(app)
        assert [await wire.closed() for wire in wires] == [CLOSED, FINISHED, FINISHED]


async def test_a_session_that_ended_before_its_connection_was_known_is_noticed() -> None:
    """The store is asked once more after the connection was opened, even where everything that ends is announced."""

    @websocket("/slow")
    async def slow(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
        await behind(socket.app)
        await socket.accept()
        async for _ in socket.iter_data("text"):
            pass

    app = make_app(slow, config=make_config(poll_interval=BEAT))
    watch = plugin_in(app).connections
    assert watch is not None
    watch.watch()._hearing = True
    async with client_of(app) as client:
        await client.post("/login/alice")
        assert await Wire(app, "/slow", client, kind="websocket").closed() == CLOSED


class Counting(MemoryStore):
    """Remembers what it was asked."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.traced: list[Sequence[str]] = []
        self.out = False

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        if self.out:
            raise StoreUnavailableError
        self.traced.append(keys)
        return await super().trace(keys)


async def test_ordinary_requests_and_short_streams_ask_the_store_nothing(clock: FakeClock) -> None:
    store = Counting(clock)
    app = live_app(store=store, clock=clock, poll_interval=0.2)
    async with client_of(app) as client:
        await client.post("/login/alice")
        for path in ("/read", "/short", "/public") * 5:
            assert (await client.get(path)).status_code == 200
        watch = plugin_in(app).connections
        assert watch is not None
        assert not watch.watch()._sessions
        await asyncio.sleep(0.4)  # nothing may happen: that cannot be waited for
    assert store.traced == []


async def test_a_beat_asks_once_for_all_connections_of_a_session(clock: FakeClock) -> None:
    store = Counting(clock)
    app = live_app(store=store, clock=clock, poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        wires = [await open_socket(app, client) for _ in range(20)]
        await until(lambda: len(store.traced) > 3)
        assert {len(keys) for keys in store.traced} == {1}
        await client.post("/logout")
        assert [await wire.closed() for wire in wires] == [CLOSED] * 20


async def test_an_outage_closes_nothing_and_what_ended_meanwhile_is_closed_after_it(clock: FakeClock) -> None:
    store, recorder = Counting(clock), Recorder()
    app = live_app(store=store, clock=clock, poll_interval=BEAT, on_event=[recorder])
    async with client_of(app) as alice, client_of(app) as bob:
        await alice.post("/login/alice")
        await bob.post("/login/bob")
        mine, other = await open_socket(app, alice), await open_socket(app, bob)
        store.out = True
        await until(lambda: "store.unavailable" in recorder.names)
        await behind(app)
        for count in range(5):
            mine.say(str(count))
            await until(partial(answered, mine, str(count)))
            await asyncio.sleep(2 * BEAT)
        assert mine.open
        assert recorder.names.count("store.unavailable") == 1
        store.out = False
        assert await mine.closed() == CLOSED
        assert other.open
        await other.hang_up()


@pytest.mark.parametrize("lifetime", ["idle", "absolute"])
async def test_a_connection_ends_with_the_timeout_whatever_is_said_on_it(lifetime: str, clock: FakeClock) -> None:
    recorder = Recorder()
    timeouts = Timeouts(idle=60) if lifetime == "idle" else Timeouts(absolute=60)
    app = live_app(clock=clock, timeouts=timeouts, poll_interval=BEAT, on_event=[recorder])
    watch = plugin_in(app).connections
    assert watch is not None
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client)
        watch.watch()._hearing = True  # the time alone must be enough
        clock.advance(seconds=59)
        socket.say("still here")
        await until(lambda: socket.heard == ["still here"])
        await asyncio.sleep(3 * BEAT)
        assert socket.open
        clock.advance(seconds=1)
        assert await socket.closed() == CLOSED
        await until(lambda: "connection.closed" in recorder.names)
        assert recorder.events[-1].reason == "expired"


async def test_a_session_that_is_used_elsewhere_keeps_its_connections(clock: FakeClock) -> None:
    app = live_app(clock=clock, timeouts=Timeouts(idle=60), poll_interval=BEAT)
    watch = plugin_in(app).connections
    assert watch is not None
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client)
        watch.watch()._hearing = True
        for _ in range(4):
            clock.advance(seconds=40)
            assert (await client.get("/read")).json()["subject"] == "alice"
            await asyncio.sleep(3 * BEAT)
            assert socket.open
        await socket.hang_up()


async def test_a_handler_that_only_sends_is_told_by_its_next_send() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client, "/ticks")
        await client.post("/logout")
        assert await socket.closed() == CLOSED
        assert app.state["left"] == 4401


async def test_no_data_follows_the_end_of_a_stream() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        stream = await open_stream(app, client, "/flood")
        await until(lambda: len(stream.sent) > 100)
        await client.post("/logout")
        assert await stream.closed() == FINISHED
        assert [message.get("more_body") for message in stream.sent].count(False) == 1


async def test_a_response_that_declared_its_length_is_left_to_the_server_to_break_off() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        stream = await open_stream(app, client, "/sized")
        await until(lambda: len(stream.sent) == 2)
        await client.post("/logout")
        assert (await stream.closed())["body"] == b"x"


@pytest.mark.parametrize(("path", "kind"), [("/deaf", "websocket"), ("/raw", "http")])
async def test_a_handler_that_does_not_notice_is_cancelled(path: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        wire = await Wire(app, path, client, kind=kind).started()
        await asyncio.sleep(0)
        await client.post("/logout")
        assert await wire.closed() == (CLOSED if kind == "websocket" else FINISHED)
        assert not wire.task.cancelled()


async def test_a_session_that_is_asked_for_later_is_watched_from_then_on() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client, "/late")
        socket.say("hello")
        await until(lambda: socket.heard == ["hello"])
        await client.post("/logout")
        assert await socket.closed() == CLOSED


async def test_connections_of_a_visitor_without_a_session_stay() -> None:
    app = live_app(poll_interval=BEAT)
    async with client_of(app) as client:
        socket = await open_socket(app, client)
        await asyncio.sleep(3 * BEAT)
        assert socket.open
        await socket.hang_up()


async def test_connections_may_be_left_alone() -> None:
    app = live_app(close_connections="never", poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client)
        await client.post("/logout")
        await asyncio.sleep(3 * BEAT)
        assert socket.open
        await socket.hang_up()


async def test_a_store_that_only_keeps_the_contract_is_enough(clock: FakeClock) -> None:
    class Plain(MemoryStore):
        trace = None  # type: ignore[assignment]

    app = live_app(store=Plain(clock=clock), clock=clock, poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client)
        await behind(app)
        assert await socket.closed() == CLOSED


async def test_a_client_that_cancels_is_no_ended_session() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client, "/deaf")
        socket.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await socket.task


async def test_a_task_that_outlives_its_request_watches_nothing() -> None:
    go_on, gone = asyncio.Event(), asyncio.Event()

    @get("/leaves-a-task")
    async def leaves_a_task(request: Request[Any, Any, Any], session: Session[AppSession]) -> str:
        async def wait_for_the_client() -> None:
            await go_on.wait()
            await request.receive()
            gone.set()

        left.append(asyncio.create_task(wait_for_the_client()))
        return "answer"

    left: list[asyncio.Task[None]] = []
    app = make_app(leaves_a_task, config=make_config(poll_interval=60.0))
    async with client_of(app) as client:
        await client.post("/login/alice")
        wire = await Wire(app, "/leaves-a-task", client).started()
        await wire.task
        go_on.set()
        await wire.hang_up()
        await asyncio.wait_for(gone.wait(), DEADLINE)
        watch = plugin_in(app).connections
        assert watch is not None
        assert list(watch.watch()._sessions) == []


async def test_closed_connections_leave_nothing_behind(clock: FakeClock) -> None:
    app = live_app(clock=clock, poll_interval=BEAT)
    watch = plugin_in(app).connections
    assert watch is not None
    async with app.lifespan(), client_of(app) as client:
        await client.post("/login/alice")
        for _ in range(1200):
            await (await open_socket(app, client)).hang_up()
        held = await open_socket(app, client)
        here = watch.watch()
        await until(lambda: len(here._sessions._expiring) < 600)
        await held.hang_up()
        assert (here._sessions._sessions, here._sessions._keys) == ({}, {})
    assert all(task.done() for task in here._tasks)


@pytest.mark.parametrize("options", [{"poll_interval": 0}, {"close_connections": "sometimes"}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        make_config(**options)
