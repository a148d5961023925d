"""A request waits for its store once: a stalled store costs one timeout, and a healthy one none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pytest
from litestar import WebSocket, post, websocket

from session_core import Session, StoreUnavailableError
from session_core.clock import Clock
from session_core.stores import MemoryStore
from session_core.stores.base import Entry, StoredSession
from session_core.stores.deadlines import (
    START_SECONDS,
    RequestTime,
    Step,
    check_deadline,
    open_request_time,
    remaining,
    step_deadline,
)
from session_core.stores.guarded import GuardedStore
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import World
from tests.support.live_wire import Wire
from tests.support.sessions import ALICE, AppSession, client_of, make_app
from tests.support.stopwatch import stopwatch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("virtual_time")]

TIMEOUT = 0.4
SLACK = 0.3
"""Extra seconds for pauses between attempts, less than a second timeout."""


class SlowStore(MemoryStore):
    """Takes `seconds` for every call after the first `calm` ones; `seen` are the remaining seconds of the given deadlines."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock=clock)
        self.seconds = 0.0
        self.calm = 0
        self.seen: list[float] = []

    async def _wait(self) -> None:
        self.seen.append(remaining(-1.0))
        if self.calm:
            self.calm -= 1
        elif self.seconds:
            await asyncio.sleep(self.seconds)

    async def load(self, key: str) -> StoredSession | None:
        await self._wait()
        return await super().load(key)

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        await self._wait()
        return await super().create(key, entry, limit=limit)

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        await self._wait()
        return await super().replace(key, entry, version=version)

    async def rotate(self, old_key: str, new_key: str, entry: Entry, **rest: Any) -> tuple[str, ...]:
        await self._wait()
        return await super().rotate(old_key, new_key, entry, **rest)

    async def delete(self, key: str) -> tuple[str, ...]:
        await self._wait()
        return await super().delete(key)


Verb = Callable[[Any], Awaitable[object]]


async def at_once(session: Any) -> None:
    async def later() -> None:
        await asyncio.sleep(TIMEOUT / 2)
        await session.update(visits=2)

    await asyncio.gather(session.update(visits=1), later())


VERBS: dict[str, Verb] = {
    "update": lambda session: session.update(visits=1),
    "regenerate": lambda session: session.regenerate(),
    "login": lambda session: session.login(ALICE),
    "destroy": lambda session: session.destroy(),
    "reload": lambda session: session.reload(),
    "two_tasks": at_once,
}


def app_with(verb: Verb, store: MemoryStore) -> Any:
    @post("/verb")
    async def handler(session: Session[AppSession]) -> None:
        for _ in range(3):  # an application that retries waits no longer
            try:
                await verb(session)
            except StoreUnavailableError as error:
                last = error
            else:
                return
        raise last

    return make_app(handler, store=store, store_timeout=TIMEOUT)


@pytest.mark.parametrize("calm", [0, 1])
@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("part", [0.4, 0.8, 100.0], ids=["slow", "slower", "stalled"])
async def test_a_store_that_is_too_slow_costs_a_request_one_timeout(name: str, part: float, calm: int) -> None:
    store = SlowStore()
    app = app_with(VERBS[name], store)
    async with app.lifespan(), client_of(app) as client:
        assert (await client.post("/visit")).status_code == 201
        store.seconds, store.calm = part * TIMEOUT, calm
        async with stopwatch() as watch:
            answer = await client.post("/verb")
            assert watch.seconds < TIMEOUT + SLACK
        assert answer.status_code in {201, 503}
        assert part < 1 or answer.status_code == 503
        store.seconds = 0
        assert (await client.get("/read")).status_code == 200


async def test_the_time_of_the_first_read_counts_too() -> None:
    """A load of 0.7 timeouts leaves 0.3 for the write."""
    store = SlowStore()
    app = app_with(VERBS["update"], store)
    async with app.lifespan(), client_of(app) as client:
        await client.post("/visit")
        store.seconds = 0.7 * TIMEOUT
        async with stopwatch() as watch:
            assert (await client.post("/verb")).status_code == 503
            assert watch.seconds < TIMEOUT + SLACK
        assert store.seen[-1] < 0.35 * TIMEOUT


async def test_writers_behind_a_stuck_write_each_time_out_on_their_own() -> None:
    """And a write answered with 503 is not applied when the store is back."""
    store = SlowStore()
    app = make_app(store=store, store_timeout=TIMEOUT)
    async with app.lifespan(), client_of(app) as client:
        await client.post("/visit")

        async def timed(delay: float) -> tuple[int, float]:
            await asyncio.sleep(delay)
            async with stopwatch() as watch:
                return (await client.post("/visit")).status_code, watch.seconds

        async def stuck(*_: object, **__: object) -> int:
            await asyncio.sleep(100)
            raise AssertionError

        store.replace = stuck  # type: ignore[method-assign]
        answers = await asyncio.gather(*(timed(number * TIMEOUT / 4) for number in range(4)))
        assert [status for status, _ in answers] == [503] * 4
        assert max(took for _, took in answers) < TIMEOUT + SLACK
        del store.replace  # type: ignore[method-assign]
        assert (await client.post("/visit")).json() == {"visits": 2}


async def test_a_logout_of_the_provider_waits_for_the_store_once() -> None:
    """Its route has no session and makes five store calls."""
    clock = FakeClock()
    world = World(clock=clock, store=SlowStore(clock))
    await world.login()
    token = world.op.logout_token()
    store = world.sessions.store
    assert isinstance(store.inner, SlowStore)
    store._timeout, store.inner.seconds = TIMEOUT, 0.7 * TIMEOUT
    async with stopwatch() as watch:
        assert (await world.send_logout(token)).status_code == 503
        assert watch.seconds < TIMEOUT + SLACK
    store.inner.seconds = 0
    assert (await world.send_logout(token)).status_code == 200
    assert await world.subject() is None


async def test_other_work_of_the_handler_costs_nothing() -> None:
    """The store responds in a third of its timeout; between the calls the handler works for longer than the whole timeout."""
    store = SlowStore()

    @post("/works")
    async def works(session: Session[AppSession]) -> None:
        await asyncio.sleep(1.2 * TIMEOUT)
        await session.update(visits=5)
        await asyncio.sleep(1.2 * TIMEOUT)

    app = make_app(works, store=store, store_timeout=TIMEOUT)
    async with app.lifespan(), client_of(app) as client:
        await client.post("/visit")
        store.seconds = TIMEOUT / 3
        assert (await client.post("/works")).status_code == 201
        assert (await client.get("/read")).json()["data"]["visits"] == 5


async def test_many_calls_of_a_healthy_store_cost_nothing() -> None:
    """In sequence and concurrently: together they take several timeouts."""
    store = SlowStore()

    @post("/busy")
    async def busy(session: Session[AppSession]) -> None:
        async def read() -> None:
            for _ in range(100):
                await session.reload()

        await asyncio.gather(read(), read())

    app = make_app(busy, store=store, store_timeout=TIMEOUT)
    async with app.lifespan(), client_of(app) as client:
        await client.post("/visit")
        store.seconds = TIMEOUT / 60
        assert (await client.post("/busy")).status_code == 201


async def test_each_store_call_of_a_websocket_has_its_own_time() -> None:
    store = SlowStore()
    seen: list[str] = []

    @websocket("/socket")
    async def socket(socket: WebSocket[Any, Any, Any], session: Session[AppSession]) -> None:
        await socket.accept()
        for number in range(4):
            try:
                await session.update(visits=number)
                seen.append("written")
            except StoreUnavailableError:
                seen.append("503")
            store.seconds = TIMEOUT * (10 if number == 1 else 0.7)
        await socket.close()

    app = make_app(socket, store=store, store_timeout=TIMEOUT)
    async with app.lifespan(), client_of(app) as client:
        await client.post("/visit")
        await Wire(app, "/socket", client, kind="websocket").task
    assert seen == ["written", "written", "503", "written"]


async def test_the_deadline_of_a_step_is_visible_only_inside_it() -> None:
    assert step_deadline() is None
    assert remaining(7.0) == 7.0
    with Step(5.0) as outer:
        assert outer.is_whole
        assert step_deadline() == outer.deadline
        assert 4.0 < remaining(7.0) <= 5.0
        with Step(60.0) as inner:
            assert not inner.is_whole
            assert inner.deadline == outer.deadline
        with Step(until=monotonic() - 1):
            assert remaining(7.0) == 0.0
            with pytest.raises(StoreUnavailableError) as late:
                check_deadline()
            assert late.value.not_applied
        check_deadline()
        assert step_deadline() == outer.deadline
    assert step_deadline() is None
    check_deadline()


def test_overlapping_steps_count_once() -> None:
    request, now = RequestTime(), monotonic()
    assert request.begin(now - 1.5, 2.0) == 2.0
    assert request.begin(now - 0.5, 2.0) == 1.0  # the first has already been waited for
    request.end(now - 1.5, 2.0)
    request.end(now - 0.5, 2.0)
    assert 1.5 <= request.spent < 1.6
    assert 0.4 < request.begin(monotonic(), 2.0) <= 0.5
    quick = monotonic()
    request.begin(quick, 2.0)
    request.end(quick, 2.0)  # fast enough to be healthy
    assert 1.5 <= request.spent < 1.6


async def test_a_request_without_time_left_calls_no_store() -> None:
    store = SlowStore()

    async def told(_: str) -> None:
        pass

    guarded = GuardedStore(store, timeout=TIMEOUT, on_outage=told)
    await guarded.open()
    request = open_request_time()
    request.spent = TIMEOUT
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: guarded.load("k"),
        lambda: guarded.delete("k"),
        lambda: guarded.create("k", Entry(b"", 1 << 45)),
        lambda: guarded.replace("k", Entry(b"", 1 << 45), version=1),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError) as late:
            await call()
        assert late.value.not_applied
    assert store.seen == []
    request.over = True
    assert await guarded.load("k") is None


@pytest.mark.parametrize("seconds", [0.01, 60.0])
async def test_opening_has_more_time_than_a_request(seconds: float) -> None:
    given: list[float] = []

    class Opening(MemoryStore):
        async def open(self) -> None:
            given.append(remaining(-1.0))

    async def outage(reason: str) -> None:
        raise AssertionError(reason)

    await GuardedStore(Opening(), timeout=seconds, on_outage=outage).open()
    assert given == [pytest.approx(max(seconds, START_SECONDS), rel=0.5)]
