"""Faults of a database server: each is an outage in time, loses no acknowledged write, and ends with the fault."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from session_core.errors import SessionConflictError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql.database import Earlier
from session_core.stores.sql.link import Link
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.store import SqlStore
from tests.session_core.stores.sql.sql_faults import short_timeout
from tests.support.mariadb_server import MariadbServer, mariadb_server
from tests.support.opened_store import opened_store
from tests.support.postgres_server import PostgresServer, postgres_server
from tests.support.stopwatch import stopwatch

pytestmark = pytest.mark.anyio
FOREVER = 2**52
Server = PostgresServer | MariadbServer


@asynccontextmanager
async def opened(url: str, **options: int) -> AsyncIterator[SqlStore]:
    async with opened_store(SqlStore(url, **options)) as store:
        yield store


@pytest.fixture(params=["postgres", "mariadb"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for one test."""
    with postgres_server() if request.param == "postgres" else mariadb_server() as server:
        yield server


async def execute(url: str, *statements: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - waits for servers and other tasks
            await asyncio.sleep(0.01)


async def answers(store: SqlStore) -> bool:
    try:
        await store.ping()
    except StoreUnavailableError:
        return False
    return True


class Load:
    """Clients that each increment a counter and record acknowledged increments."""

    def __init__(self, store: SqlStore, clients: int) -> None:
        self._store = store
        self._keys = [f"counter{number}" for number in range(clients)]
        self.acknowledged = dict.fromkeys(self._keys, 0)
        self.unknown = dict.fromkeys(self._keys, 0)
        self.longest = 0.0
        """The longest duration of a call in seconds."""
        self._stop = asyncio.Event()

    async def begin(self) -> None:
        for key in self._keys:
            await self._store.create(key, Entry(b"0", FOREVER, "user"))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._count(key)) for key in self._keys]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)

    async def more(self, number: int) -> None:
        """Wait until every client has some more acknowledgements."""
        begun = dict(self.acknowledged)

        async def done() -> bool:
            return all(self.acknowledged[key] >= begun[key] + number for key in self._keys)

        await until(done)

    async def check(self) -> None:
        """Nothing acknowledged is lost, and nothing was applied twice."""
        for key in self._keys:
            stored = await self._store.load(key)
            assert stored is not None
            number = int(stored.entry.data.partition(b".")[0])
            assert self.acknowledged[key] <= number <= self.acknowledged[key] + self.unknown[key]
            assert stored.version == number + 1

    async def _count(self, key: str) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            writing = False
            try:
                stored = await self._store.load(key)
                assert stored is not None
                number = int(stored.entry.data.partition(b".")[0])
                writing = True
                await self._store.replace(key, Entry(b"%d.%b" % (number + 1, os.urandom(8)), FOREVER), version=stored.version)
            except StoreUnavailableError:
                self.unknown[key] += writing
                await asyncio.sleep(0.01)
            else:
                self.acknowledged[key] += 1
            self.longest = max(self.longest, time.monotonic() - began)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_server_restarted_under_load_loses_nothing(own_server: Server, how: str) -> None:
    """By a clean shutdown and by kill -9. The application is not restarted."""
    async with opened(own_server.url, pool_size=4) as store:
        load = Load(store, 6)
        await load.begin()
        with short_timeout(store):
            async with load.running():
                for _ in range(2):
                    await load.more(10)
                    await asyncio.to_thread(getattr(own_server, how))
                    with pytest.raises(StoreUnavailableError):
                        await store.ping()
                    await asyncio.to_thread(own_server.start)
                    await load.more(10)
        await load.check()
        assert sum(load.unknown.values()) < sum(load.acknowledged.values())
        assert load.longest < 10


async def test_a_crash_of_one_postgres_process_loses_nothing() -> None:
    """The server then ends all its processes, recovers, and continues."""
    with postgres_server() as server:
        async with opened(server.url, pool_size=4) as store:
            load = Load(store, 6)
            await load.begin()
            with short_timeout(store):
                async with load.running():
                    await load.more(10)
                    async with store._database.pool.lend(time.monotonic() + 60) as link:
                        assert isinstance(link, PostgresqlLink)
                        os.kill(link.connection.get_server_pid(), signal.SIGKILL)
                        link.terminate()
                    await load.more(10)
            await load.check()


async def test_a_frozen_server_is_an_outage_in_time(own_server: Server) -> None:
    """At most twice the timeout; closing does not wait for it either."""
    async with opened(own_server.url, pool_size=2) as store, opened(own_server.url) as other:
        await store.create("k", Entry(b"kept", FOREVER))
        await other.ping()
        own_server.freeze()
        try:
            for _ in range(2):
                late = Entry(b"late", FOREVER)
                calls = [store.load("k"), store.replace("k", late, version=1), store.touch("k", FOREVER + 9), store.ping()]
                async with stopwatch() as watch:
                    with short_timeout(store):
                        results = await asyncio.gather(*calls, return_exceptions=True)
                    assert watch.seconds < 5
                assert all(isinstance(result, StoreUnavailableError) for result in results)
            async with asyncio.timeout(30):
                await other.close()
        finally:
            own_server.thaw()
        await until(lambda: answers(store))
        stored = await store.load("k")
        assert stored is not None
        # Sent statements may have been applied once when the server resumed.
        assert (stored.version, stored.entry.data) in [(1, b"kept"), (2, b"late")]


async def test_a_rolled_back_transaction_is_repeated(sql_server: Server) -> None:
    """Two transactions that wait for each other: the server aborts one, and it runs again."""
    async with opened(sql_server.url) as store:
        await store.create("a", Entry(b"", FOREVER))
        await store.create("b", Entry(b"", FOREVER))
        both = asyncio.Barrier(2)
        runs = {"ab": 0, "ba": 0}

        async def lock_both(order: str) -> None:
            async def work(link: Link, earlier: Earlier[None]) -> None:
                del earlier
                runs[order] += 1
                for key in order:
                    await link.script(f"UPDATE sessions SET version = version + 1 WHERE {column} = '{key}'")
                    if runs[order] == 1 and key == order[0]:
                        await both.wait()

            await store._database.transact(work)

        column = "key" if isinstance(sql_server, PostgresServer) else "`key`"
        await asyncio.gather(lock_both("ab"), lock_both("ba"))
        assert sum(runs.values()) >= 3  # more, when a second attempt takes its first lock before the other transaction wakes up
        for key in "ab":
            stored = await store.load(key)
            assert stored is not None
            assert stored.version == 3


async def test_a_serialization_failure_is_repeated(database: str) -> None:
    """As reported by databases that support no other isolation."""
    async with opened(database) as store:
        await store.create("a", Entry(b"", FOREVER))
        runs = 0

        async def work(link: Link, earlier: Earlier[None]) -> None:
            nonlocal runs
            del earlier
            runs += 1
            await link.script("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await link.script("SELECT 1 FROM sessions")
            if runs == 1:
                await store.replace("a", Entry(b"theirs", FOREVER), version=1)
            await link.script("UPDATE sessions SET version = version + 1")

        await store._database.transact(work)
        assert runs == 2
        stored = await store.load("a")
        assert stored is not None
        assert (stored.version, stored.entry.data) == (3, b"theirs")


async def test_a_lock_held_too_long_is_an_outage(sql_server: Server) -> None:
    """In time, and without leaving locks that would block others."""
    async with opened(sql_server.url) as store:
        await store.create("k", Entry(b"", FOREVER, "user"))
        engine = create_async_engine(sql_server.url)
        async with engine.begin() as connection:
            await connection.execute(text("SELECT * FROM sessions FOR UPDATE"))
            ends = (store.delete("k"), store.delete_by(SessionIndex(user="user")), store.replace("k", Entry(b"", 9), version=1))
            async with stopwatch() as watch:
                with short_timeout(store):
                    results = await asyncio.gather(*ends, return_exceptions=True)
                assert watch.seconds < 5
            assert all(isinstance(result, StoreUnavailableError) for result in results)
            assert await store.load("k") is not None
        await engine.dispose()
        assert await store.delete("k") == ("k",)


async def test_a_client_frozen_in_a_transaction_blocks_no_other(sql_server: Server) -> None:
    """Its locks end with its timeout, which the server enforces."""
    async with opened(sql_server.url) as frozen, opened(sql_server.url) as other:
        await other.create("k", Entry(b"", FOREVER))
        link = await frozen._database.driver.connect(60)  # without a pool that would check the connection
        link.deadline = time.monotonic() + 4
        await link.begin()
        await link.script("SELECT * FROM sessions FOR UPDATE")
        assert await other.delete("k") == ("k",)
        link.terminate()


async def test_an_exhausted_pool_is_an_outage_in_time(sql_server: Server) -> None:
    async with opened(sql_server.url, pool_size=2) as store:
        await store.create("k", Entry(b"", FOREVER))
        async with AsyncExitStack() as all_of_them:
            for _ in range(2):
                await all_of_them.enter_async_context(store._database.pool.lend(time.monotonic() + 60))
            calls = [store.load("k"), store.delete("k"), store.claim("name", FOREVER), store.ping()]
            async with stopwatch() as watch:
                with short_timeout(store):
                    results = await asyncio.gather(*calls, return_exceptions=True)
                assert watch.seconds < 5
            assert all(isinstance(result, StoreUnavailableError) for result in results)
        assert await store.load("k") is not None


async def test_a_primary_that_became_a_standby_is_an_outage() -> None:
    """Also for reads, because it may not have the newest logouts. When a primary is back, everything works."""
    with postgres_server() as server:
        async with opened(server.url) as store:
            await store.create("k", Entry(b"", FOREVER))
            await asyncio.to_thread(server.stop)
            (server.directory / "data" / "standby.signal").touch()
            await asyncio.to_thread(server.start)
            with short_timeout(store):
                for call in (store.load("k"), store.replace("k", Entry(b"", FOREVER), version=1), store.ping()):
                    with pytest.raises(StoreUnavailableError):
                        await call
            await execute(server.url, "SELECT pg_promote()")
            assert await store.replace("k", Entry(b"", FOREVER), version=1) == 2


async def test_of_several_hosts_the_primary_is_used() -> None:
    """Also after a failover: the same store connects to the new primary."""
    with postgres_server() as one, postgres_server() as two:
        async with opened(one.url), opened(two.url):
            pass  # the tables
        standby = two.directory / "data" / "standby.signal"
        standby.touch()
        for action in (two.stop, two.start):
            await asyncio.to_thread(action)
        hosts = f"host=127.0.0.1:{two.port}&host=127.0.0.1:{one.port}"
        async with opened(f"postgresql+asyncpg://postgres@/postgres?{hosts}&ssl=disable") as store:
            await store.create("k", Entry(b"one", FOREVER))
            await execute(two.url_through(two.port), "SELECT pg_promote()")
            await asyncio.to_thread(one.kill)
            with short_timeout(store, 2):
                await until(lambda: answers(store))
            assert await store.load("k") is None  # a separate server, without replication between the two
            await store.create("k", Entry(b"two", FOREVER))


async def test_connections_to_a_read_only_server_are_replaced(own_server: Server) -> None:
    """The address may point to another server by now, or the same one may have become the primary."""
    if isinstance(own_server, PostgresServer):
        url = own_server.url
        begin, end = ("ALTER ROLE postgres SET default_transaction_read_only = on", "ALTER ROLE postgres RESET ALL")
        end = f"SET default_transaction_read_only = off; {end}"
    else:
        await execute(own_server.url, "CREATE USER app", "GRANT ALL ON sessions.* TO app")
        url = own_server.url.replace("root@", "app@")
        begin, end = "SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"
    async with opened(url) as store:
        await store.create("k", Entry(b"", FOREVER))
    await execute(own_server.url, begin)
    async with opened(url, create_tables=False) as store:
        assert await store.load("k") is not None
        for call in (store.replace("k", Entry(b"", FOREVER), version=1), store.claim("name", FOREVER), store.ping()):
            with pytest.raises(StoreUnavailableError, match=r"25006|1290"):
                await call
        await execute(own_server.url, *end.split("; "))
        assert await store.replace("k", Entry(b"", FOREVER), version=1) == 2


async def test_the_load_detects_an_increment_without_version_check() -> None:
    """A store that ignores the version must fail the load's check."""
    from session_core.stores.memory import MemoryStore

    class Careless(MemoryStore):
        async def replace(self, key: str, entry: Entry, *, version: int) -> int:
            del version
            stored = await self.load(key)
            assert stored is not None
            await asyncio.sleep(0)
            try:
                return await super().replace(key, Entry(b"0.lost", FOREVER), version=stored.version)
            except SessionConflictError:
                return 0

    load = Load(Careless(), 2)  # type: ignore[arg-type]
    await load.begin()
    async with load.running():
        await load.more(3)
    with pytest.raises(AssertionError):
        await load.check()
