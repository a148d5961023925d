"""The store calls of a login, and the number of round trips of concurrent calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from session_core.stores.base import Entry, StoredSession
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.session_core.oidc.fake_op import World

pytestmark = pytest.mark.anyio
T = TypeVar("T")
_TURNS = 10
"""Turns of the event loop until a response."""


class CountingStore(MemoryStore):
    """Responds after some turns of the event loop; concurrent calls count as one round trip."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.names: list[str] = []
        self.round_trips = 0
        self._under_way = 0
        self._inside = False

    def begin(self) -> None:
        self.names.clear()
        self.round_trips = 0

    async def _count(self, name: str, call: Awaitable[T]) -> T:
        if self._inside:  # a nested call of this store
            return await call
        self.names.append(name)
        self.round_trips += not self._under_way
        self._under_way += 1
        try:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            self._inside = True
            return await call
        finally:
            self._inside = False
            self._under_way -= 1

    async def load(self, key: str) -> StoredSession | None:
        return await self._count("load", super().load(key))

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        return await self._count("create", super().create(key, entry, limit=limit))

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        return await self._count("replace", super().replace(key, entry, version=version))

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        made = super().rotate(old_key, new_key, entry, version=version, successor_until=successor_until, limit=limit)
        return await self._count("rotate", made)

    async def claim(self, name: str, expires_at: int) -> bool:
        return await self._count("claim", super().claim(name, expires_at))

    async def claimed_until(self, name: str) -> int | None:
        return await self._count("claimed_until", super().claimed_until(name))


@pytest.fixture
def store(clock: FakeClock) -> CountingStore:
    return CountingStore(clock)


@pytest.fixture
def world(clock: FakeClock, store: CountingStore) -> World:
    return World(clock=clock, store=store)


async def test_the_callback_of_a_visitor_takes_four_round_trips(world: World, store: CountingStore) -> None:
    """Single use, the marks of the provider's logouts, the session, the marks again."""
    url = world.op.authorize(await world.start())
    store.begin()
    assert (await world.come_back(url)).status_code == 303
    assert store.names == ["claim", "load", "load", "create", "load", "load"]
    assert store.round_trips == 4


async def test_the_callback_of_an_anonymous_session_takes_five(world: World, store: CountingStore) -> None:
    """The session is read first. In sequence, its nine calls would take nine round trips."""
    assert (await world.browser.post("/visit")).status_code == 201
    url = world.op.authorize(await world.start())
    store.begin()
    assert (await world.come_back(url)).status_code == 303
    assert sorted(store.names) == sorted(["load", "claim", "claimed_until", "load", *["load"] * 2, "rotate", *["load"] * 2])
    assert store.round_trips == 5


async def test_a_login_starts_in_one_or_two_round_trips(world: World, store: CountingStore) -> None:
    """For a visitor only the store's counter is read; otherwise also the session and whether it was ended from elsewhere."""
    await world.start()
    assert (store.names, store.round_trips) == (["load"], 1)
    assert (await world.browser.post("/visit")).status_code == 201
    store.begin()
    await world.start()
    assert sorted(store.names) == ["claimed_until", "load", "load", "load"]
    assert store.round_trips == 2
