"""Polling of the store for open connections: sessions ended without an announcement, outages, timeouts, few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from litestar import WebSocket, websocket

from session_core import Session, StoreUnavailableError, Timeouts
from session_core.stores.announcements import Trace
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.support.live_wire import (
    BEAT,
    CLOSED,
    FINISHED,
    Wire,
    answered,
    behind,
    live_app,
    open_socket,
    open_stream,
    until,
)
from tests.support.sessions import AppSession, Recorder, client_of, make_app, make_config, plugin_in

pytestmark = pytest.mark.anyio


async def test_an_end_without_announcement_is_found_by_polling() -> None:
    app = live_app(poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        wires = [await open_socket(app, client), await open_stream(app, client), await open_stream(app, client, "/silent")]
        await behind(app)
        assert [await wire.closed() for wire in wires] == [CLOSED, FINISHED, FINISHED]


async def test_a_session_that_ended_before_its_connection_was_registered_is_noticed() -> None:
    """The store is asked again after the connection was opened, even when every end is announced."""

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
    """Records its calls."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.traced: list[Sequence[str]] = []
        self.out = False

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        if self.out:
            raise StoreUnavailableError
        self.traced.append(keys)
        return await super().trace(keys)


async def test_ordinary_requests_and_short_streams_cost_no_store_call(clock: FakeClock) -> None:
    store = Counting(clock)
    app = live_app(store=store, clock=clock, poll_interval=0.2)
    async with client_of(app) as client:
        await client.post("/login/alice")
        for path in ("/read", "/short", "/public") * 5:
            assert (await client.get(path)).status_code == 200
        watch = plugin_in(app).connections
        assert watch is not None
        assert not watch.watch()._sessions
        await asyncio.sleep(0.4)  # asserting that nothing happens needs a fixed time
    assert store.traced == []


async def test_a_poll_asks_once_for_all_connections_of_a_session(clock: FakeClock) -> None:
    store = Counting(clock)
    app = live_app(store=store, clock=clock, poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        wires = [await open_socket(app, client) for _ in range(20)]
        await until(lambda: len(store.traced) > 3)
        assert {len(keys) for keys in store.traced} == {1}
        await client.post("/logout")
        assert [await wire.closed() for wire in wires] == [CLOSED] * 20


async def test_an_outage_closes_no_connection_and_ended_sessions_are_closed_afterwards(clock: FakeClock) -> None:
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
async def test_a_connection_ends_with_the_timeout_despite_its_messages(lifetime: str, clock: FakeClock) -> None:
    recorder = Recorder()
    timeouts = Timeouts(idle=60) if lifetime == "idle" else Timeouts(absolute=60)
    app = live_app(clock=clock, timeouts=timeouts, poll_interval=BEAT, on_event=[recorder])
    watch = plugin_in(app).connections
    assert watch is not None
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client)
        watch.watch()._hearing = True  # the timeout alone must end it
        clock.advance(seconds=59)
        socket.say("still here")
        await until(lambda: socket.heard == ["still here"])
        await asyncio.sleep(3 * BEAT)
        assert socket.open
        clock.advance(seconds=1)
        assert await socket.closed() == CLOSED
        await until(lambda: "connection.closed" in recorder.names)
        assert recorder.events[-1].reason == "expired"


async def test_a_session_used_elsewhere_keeps_its_connections(clock: FakeClock) -> None:
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


async def test_a_store_with_the_basic_contract_is_enough(clock: FakeClock) -> None:
    class Plain(MemoryStore):
        trace = None  # type: ignore[assignment]

    app = live_app(store=Plain(clock=clock), clock=clock, poll_interval=BEAT)
    async with client_of(app) as client:
        await client.post("/login/alice")
        socket = await open_socket(app, client)
        await behind(app)
        assert await socket.closed() == CLOSED


async def test_closed_connections_are_forgotten(clock: FakeClock) -> None:
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
