"""The store contract through real Sentinels, and a primary that fails in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress

import pytest
import redis

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex, SessionStore
from session_core.stores.redis.store import RedisStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.redis.redis_sentinels import Sentinels, sentinels
from tests.support.opened_store import opened_store
from tests.support.redis_servers import info, needed_redis, needed_valkey

FOREVER = 2**41


@pytest.fixture(scope="module")
def valkey_sentinels() -> Iterator[Sentinels]:
    with sentinels(needed_valkey()) as servers:
        yield servers


class TestSentinelStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, valkey_sentinels: Sentinels) -> AsyncIterator[SessionStore]:
        valkey_sentinels.primary.admin("FLUSHALL")
        async with opened_store(RedisStore(valkey_sentinels.url, clock=clock)) as store:
            yield store


@pytest.fixture(params=["valkey", "redis"])
def own_sentinels(request: pytest.FixtureRequest) -> Iterator[Sentinels]:
    with sentinels(needed_valkey() if request.param == "valkey" else needed_redis()) as servers:
        yield servers


class Load:
    """Clients that each increment a counter, sometimes rotate its key, and record acknowledged writes."""

    def __init__(self, store: RedisStore, url: str, clients: int) -> None:
        self._store = store
        self._url = url
        self._clients = clients
        self._stop = asyncio.Event()
        self.keys: list[list[str]] = []
        self.acknowledged: list[int] = []
        self.unknown = 0

    async def begin(self) -> list[asyncio.Task[None]]:
        async with self.patient() as store:
            for _ in range(self._clients):
                self.keys.append([session_key(new_session_id())])
                self.acknowledged.append(0)
                await store.create(self.keys[-1][0], Entry(b"0", FOREVER, "user"))
        return [asyncio.create_task(self._count(number)) for number in range(self._clients)]

    def end(self) -> None:
        self._stop.set()

    def patient(self) -> AbstractAsyncContextManager[RedisStore]:
        """Another store, with the default timeout."""
        return opened_store(RedisStore(self._url))

    async def found(self) -> list[int]:
        """The counters, each under its current key."""
        counters = []
        async with self.patient() as store:
            for keys in self.keys:
                found = [int(stored.entry.data) for key in keys if (stored := await store.load(key)) is not None]
                assert len(found) == 1, "the session is not under exactly one key"
                counters += found
            assert len(await store.find(SessionIndex(user="user"))) == self._clients
        return counters

    async def _count(self, number: int) -> None:
        keys = self.keys[number]
        key = keys[0]
        while not self._stop.is_set():
            try:
                stored = await self._store.load(key)
                if stored is None:
                    # A failover reverted the rotation that created this key.
                    key = await self._live(keys)
                    continue
                new = Entry(b"%d" % (int(stored.entry.data) + 1), FOREVER, "user")
                if self.acknowledged[number] % 5 == 4:
                    keys.append(session_key(new_session_id(after=key)))
                    await self._store.rotate(key, keys[-1], new, version=stored.version, successor_until=FOREVER)
                    key = keys[-1]
                else:
                    await self._store.replace(key, new, version=stored.version)
            except (StoreUnavailableError, SessionConflictError, SessionGoneError):
                self.unknown += 1
                await asyncio.sleep(0.01)
            else:
                self.acknowledged[number] += 1

    async def _live(self, keys: list[str]) -> str:
        for key in reversed(keys):
            if await self._store.load(key) is not None:
                return key
        pytest.fail("the session is under none of its keys")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - waits for servers and other tasks
            await asyncio.sleep(0.02)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_a_failover_under_load_loses_no_replicated_write(own_sentinels: Sentinels, stack: AsyncExitStack, how: str) -> None:
    """Replicated writes survive, each session is under one key, and writes continue without a restart.

    A write acknowledged just before the failure may be lost if it was not replicated yet, as documented.
    """
    store = RedisStore(own_sentinels.url, timeout=1)
    stack.push_async_callback(store.close)
    with suppress(StoreUnavailableError):  # the short timeout may pass on a busy machine; the store connects later
        await store.open()
    load = Load(store, own_sentinels.url, 6)
    tasks = await load.begin()
    stack.callback(lambda: [task.cancel() for task in tasks])
    await until(lambda: min(load.acknowledged) >= 10)
    safe = list(load.acknowledged)
    written = await asyncio.to_thread(own_sentinels.written)
    await until(lambda: own_sentinels.replicated() >= written)
    primary = own_sentinels.primary
    own_sentinels.expect_failover()
    getattr(primary, how)()
    await until(lambda: own_sentinels.primary is not primary)
    begun = list(load.acknowledged)
    await until(lambda: all(now >= then + 10 for now, then in zip(load.acknowledged, begun, strict=True)))
    load.end()
    await asyncio.gather(*tasks)
    found = await load.found()
    assert all(now >= least + 10 for now, least in zip(found, safe, strict=True))
    if how == "freeze":
        # After its restart it considers itself the primary until a Sentinel corrects it; no client uses it.
        primary.thaw()

        def demoted() -> bool:
            with suppress(redis.exceptions.ConnectionError):  # the Sentinel closes its clients, including this one
                return b"role:slave" in info(primary, "replication")
            return False

        await until(demoted)
        assert await load.found() == found
    async with load.patient() as patient:
        await patient.ping()
