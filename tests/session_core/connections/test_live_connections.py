"""Open WebSockets and streams end when their session ends, whatever ended it, and only then; within one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import httpx
import pytest
from litestar import Litestar

from session_core import ConfigurationError, Event
from session_core.testing import FakeClock
from tests.support.live_handlers import STOPPED
from tests.support.live_wire import (
    BEAT,
    CLOSED,
    FINISHED,
    answered,
    live_app,
    open_socket,
    open_stream,
    until,
    user_index,
)
from tests.support.sessions import ALICE, Recorder, client_of, make_config, plugin_in

pytestmark = pytest.mark.anyio


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
async def test_every_end_of_a_session_closes_only_its_connections(
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


async def test_the_end_of_a_connection_is_reported_in_its_own_request() -> None:
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


async def test_a_regenerated_session_keeps_its_connections_open() -> None:
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
            before = client.cookies["session-8000"]
            await client.post("/regenerate")
            assert client.cookies["session-8000"] != before
            key = (await plugin_in(app).store.find(user_index("alice")))[0].key
            await until(partial(followed, key))
            socket.say("count")
            await until(partial(answered, socket, str(count)))
        await client.post("/logout")
        assert [await socket.closed(), await stream.closed()] == [CLOSED, FINISHED]


async def test_an_anonymous_session_is_watched_and_its_connection_closed_by_the_login() -> None:
    app = live_app()
    async with client_of(app) as client:
        await client.post("/visit")
        socket = await open_socket(app, client)
        await client.post("/regenerate")
        await client.post("/login/alice")
        assert await socket.closed() == CLOSED


async def test_connections_of_a_visitor_without_a_session_stay_open() -> None:
    app = live_app(poll_interval=BEAT)
    async with client_of(app) as client:
        socket = await open_socket(app, client)
        await asyncio.sleep(3 * BEAT)
        assert socket.open
        await socket.hang_up()


async def test_closing_connections_can_be_switched_off() -> None:
    app = live_app(close_connections="never", poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client)
        await client.post("/logout")
        await asyncio.sleep(3 * BEAT)
        assert socket.open
        await socket.hang_up()


@pytest.mark.parametrize("options", [{"poll_interval": 0}, {"close_connections": "sometimes"}])
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        make_config(**options)
