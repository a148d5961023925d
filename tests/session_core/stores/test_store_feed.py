"""Traces of many sessions at once on every store, and the announcements of Redis and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from session_core import StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.announcements import RevocationFeed, SessionTracing, Trace, trace
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.opening import open_store
from session_core.stores.redis.store import RedisStore
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock
from tests.support.opened_store import opened_store
from tests.support.redis_servers import RedisCluster, RedisServer

pytestmark = pytest.mark.anyio
SOON = 60.0
"""However busy the machine is."""
PUSHING = ["valkey", "old_redis", "valkey_cluster", "postgres"]


def url_of(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    match kind:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{folder}/sessions.db"
        case "postgres":
            return str(request.getfixturevalue("database"))
    server = request.getfixturevalue(kind)
    assert isinstance(server, RedisServer | RedisCluster)
    return server.url


@pytest.fixture(params=["memory", "sqlite", *PUSHING])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, request.param, tmp_path)


@pytest.fixture
async def store(place: str, clock: FakeClock) -> AsyncIterator[Any]:
    async with opened_store(open_store(place, clock=clock)) as store:
        yield store


@pytest.fixture(params=PUSHING)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, request.param, tmp_path)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    store = open_store(url)
    async with opened_store(store):
        yield store


def new_key(after: str | None = None) -> str:
    return session_key(new_session_id(after=after))


def entry(clock: FakeClock, seconds: int = 60, user: str | None = None, rank: int = 0) -> Entry:
    return Entry(b"data", clock.now() + seconds * 1000, user, None, rank)


async def test_trace_returns_the_state_of_every_key(store: Any, clock: FakeClock) -> None:
    live, expired, absent, old = (new_key() for _ in range(4))
    new = new_key(after=old)
    await store.create(live, entry(clock))
    await store.create(expired, entry(clock, 2))
    await store.create(old, entry(clock))
    until = clock.now() + 50_000
    await store.rotate(old, new, entry(clock), version=1, successor_until=until)
    clock.advance(seconds=2)
    assert isinstance(store, SessionTracing)
    assert await store.trace([]) == {}
    assert dict(await store.trace([live, expired, absent, old, new])) == {
        live: Trace(clock.now() + 58_000),
        old: Trace(until, new),
        new: Trace(clock.now() + 58_000),
    }
    await store.delete(old)
    assert list(await store.trace([old, new, live])) == [live]


async def test_a_remembered_rotation_expires(store: Any, clock: FakeClock) -> None:
    old = new_key()
    new = new_key(after=old)
    await store.create(old, entry(clock))
    await store.rotate(old, new, entry(clock), version=1, successor_until=clock.now() + 5000)
    clock.advance(seconds=5)
    assert list(await store.trace([old, new])) == [new]


async def test_more_keys_than_one_statement_holds(store: Any, clock: FakeClock) -> None:
    keys = [new_key() for _ in range(60)]
    for key in keys:
        await store.create(key, entry(clock))
    assert set(await store.trace([*(new_key() for _ in range(1100)), *keys])) == set(keys)


async def test_a_store_without_trace_is_queried_key_by_key(clock: FakeClock) -> None:
    class Plain:
        async def load(self, key: str) -> Any:
            return None if key == "gone" else type("Stored", (), {"entry": entry(clock)})

    found = await trace(Plain(), [*map(str, range(40)), "gone"])  # type: ignore[arg-type]
    assert set(found) == set(map(str, range(40)))


class Listener:
    """A listener of announcements."""

    def __init__(self, store: RevocationFeed) -> None:
        self._store = store
        self.names: list[str] = []
        self.open = asyncio.Event()
        self._news = asyncio.Event()

    def heard(self, names: Sequence[str] | None) -> None:
        if names is None:
            self.open.set()
        else:
            self.names += names
            self._news.set()

    async def expect(self, *keys: str) -> None:
        async with asyncio.timeout(SOON):
            while not {self._store.announced_name(key) for key in keys} <= set(self.names):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def listening(store: Any, patience: float = SOON) -> AsyncIterator[Listener]:
    assert isinstance(store, RevocationFeed)
    assert store.pushes
    ear = Listener(store)
    task = asyncio.create_task(store.listen(ear.heard, patience=patience))
    try:
        async with asyncio.timeout(SOON):
            await ear.open.wait()
        yield ear
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_another_process_hears_every_end_and_rotation_and_nothing_else(url: str, clock: FakeClock) -> None:
    clock = FakeClock(2**41)
    async with opened(url) as here, opened(url) as there, listening(here) as ear:
        keys = [new_key() for _ in range(6)]
        for rank, key in enumerate(keys):
            await there.create(key, entry(clock, user="user", rank=rank))
        await there.touch(keys[0], clock.now() + 10**6)
        await there.replace(keys[0], entry(clock, user="user"), version=1)
        await there.delete("never-there")
        await there.delete(keys[5])
        await ear.expect(keys[5])
        assert ear.names == [here.announced_name(keys[5])]
        newer = new_key(after=keys[4])
        await there.rotate(keys[4], newer, entry(clock, user="user", rank=10), version=1, successor_until=clock.now() + 60_000)
        await ear.expect(keys[4])
        last = new_key()
        evicted = await there.create(last, entry(clock, user="user", rank=11), limit=3)
        assert set(evicted) == set(keys[:3])
        await ear.expect(*evicted)
        await there.delete_by(SessionIndex(user="user"), keep=last)
        await ear.expect(keys[3], newer)
        assert len(ear.names) == 7
        await there.delete(keys[4])  # its successor has ended before
        await there.delete(last)
        await ear.expect(last)
        assert not {*keys, newer, last} & set(ear.names)


async def test_many_concurrent_ends_are_all_announced(url: str, clock: FakeClock) -> None:
    clock = FakeClock(2**41)
    keys = [new_key() for _ in range(400)]  # more than one notification of PostgreSQL holds
    async with opened(url) as here, opened(url) as there, listening(here) as ear:
        for key in keys:
            await there.create(key, entry(clock, user="crowd"))
        await there.delete_by(SessionIndex(user="crowd"))
        await ear.expect(*keys)


async def test_a_silent_channel_stays_open(url: str) -> None:
    async with opened(url) as store, listening(store, patience=2) as ear:
        await asyncio.sleep(3)  # longer than the silence after which a channel is checked
        assert ear.names == []
        await store.create(key := new_key(), Entry(b"", 2**41))
        await store.delete(key)
        await ear.expect(key)


def ignore(names: Sequence[str] | None) -> None:
    del names


async def test_a_channel_that_stays_silent_is_detected(valkey: RedisServer) -> None:
    async with opened(valkey.url) as store:
        ear = Listener(store)
        task = asyncio.create_task(store.listen(ear.heard, patience=0.2))
        async with asyncio.timeout(SOON):
            await ear.open.wait()
        valkey.freeze()
        try:
            async with asyncio.timeout(SOON):
                with pytest.raises(StoreUnavailableError):
                    await task
        finally:
            valkey.thaw()


async def test_missing_permissions_to_publish_or_subscribe_are_tolerated(valkey: RedisServer) -> None:
    valkey.admin("ACL", "SETUSER", "mute", "on", ">secret", "~*", "+@all", "resetchannels")
    try:
        async with opened(f"redis://mute:secret@127.0.0.1:{valkey.port}") as store:
            old, new = (key := new_key()), new_key(after=key)
            await store.create(old, Entry(b"", 2**41, "user"))
            await store.rotate(old, new, Entry(b"", 2**41, "user"), version=1, successor_until=2**41)
            assert await store.delete(new) == (new,)
            assert await store.find(SessionIndex(user="user")) == []
            with pytest.raises(StoreUnavailableError):
                await store.listen(ignore, patience=1)
    finally:
        valkey.admin("ACL", "DELUSER", "mute")


async def test_a_rolled_back_end_is_not_announced(database: str) -> None:
    """The announcement is part of the transaction that deletes."""
    async with opened(database) as store, listening(store) as ear:
        async with store._database.pool.lend(monotonic() + 20) as link:
            await link.begin()
            link.announce([store.announced_name("undone")])
            await link.rollback()
            await link.begin()
            link.announce([store.announced_name("done")])
            await link.commit()
        await ear.expect("done")
        assert ear.names == [store.announced_name("done")]


@pytest.mark.parametrize(
    ("make", "pushes"),
    [(lambda: SqlStore("mysql+asyncmy://user@host/db"), False), (lambda: RedisStore("redis://127.0.0.1:1"), True)],
)
def test_only_stores_that_announce_declare_it(make: Callable[[], Any], pushes: bool) -> None:
    assert make().pushes is pushes
