"""PostgreSQL behind a PgBouncer in transaction mode, as hosting providers offer it: few server processes for all clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.support.opened_store import opened_store
from tests.support.pgbouncer_server import pgbouncer
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio
FOREVER = 2**52
SERVER_PROCESSES = 2


@pytest.fixture(scope="module")
def pooled(postgres: PostgresServer) -> Iterator[str]:
    with pgbouncer(postgres, size=SERVER_PROCESSES) as url:
        yield url


class TestPgbouncerStore(SessionStoreContract):
    rounds = 3

    @pytest.fixture
    async def store(self, clock: FakeClock, database: str, pooled: str) -> AsyncIterator[SqlStore]:
        async with opened_store(SqlStore(pooled, clock=clock)) as store:
            yield store


async def use(store: SqlStore, name: str) -> None:
    """Do everything that a request can do."""
    entry = Entry(b"data", FOREVER, name, f"op {name}")
    await store.create(name, entry)
    assert await store.replace(name, entry, version=1) == 2
    assert await store.touch(name, FOREVER + 1)
    assert await store.rotate(name, f"{name} new", entry, version=2, successor_until=FOREVER, limit=3) == ()
    assert await store.load(name) is None
    assert len(await store.find(SessionIndex(user=name))) == 1
    assert await store.claim(name, FOREVER)
    assert await store.claimed_until(name) == FOREVER
    assert len(await store.trace([name, f"{name} new"])) == 2
    assert await store.create(f"{name} other", entry, limit=1) == (f"{name} new",)
    assert await store.delete_by(SessionIndex(op_session=f"op {name}")) == (f"{name} other",)
    await store.ping()


async def test_no_request_fails_and_no_state_is_left_to_other_clients(pooled: str, database: str) -> None:
    """No setting, prepared statement or lock: the next client of a server process is another application."""
    stores = [SqlStore(pooled) for _ in range(3)]
    for store in stores:
        await store.open()
    await asyncio.gather(*(use(store, f"{number} {turn}") for number, store in enumerate(stores) for turn in range(12)))
    others = [await asyncpg.connect(pooled, statement_cache_size=0) for _ in range(SERVER_PROCESSES)]
    for other in others:
        await other.execute("BEGIN")  # each now has its own server process
    processes = {await other.fetchval("SELECT pg_backend_pid()") for other in others}
    assert len(processes) == SERVER_PROCESSES
    for other in others:
        # Settings that PgBouncer itself tracks for each client.
        changed = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN ('client_encoding', 'application_name')"
        assert await other.fetch(changed) == []
        assert await other.fetch("SELECT name FROM pg_prepared_statements WHERE name <> ''") == []
        assert await other.fetch("SELECT pid FROM pg_locks WHERE locktype = 'advisory'") == []
        await other.close()
    for store in stores:
        await store.close()


async def test_the_pooler_is_detected(pooled: str, database: str) -> None:
    """Without it statements are prepared once and ends of sessions are announced; with it neither."""
    for url, is_pooled in ((pooled, True), (database, False)):
        store = SqlStore(url)
        await store.open()
        await store.load("")
        async with store._database.pool.lend(asyncio.get_running_loop().time() + 20) as link:
            prepared = await link.connection.fetch("SELECT name FROM pg_prepared_statements WHERE name <> ''")  # type: ignore[attr-defined]
        assert bool(prepared) is not is_pooled
        assert store.pushes is not is_pooled
        await store.close()


async def test_required_prepared_statements_fail_with_the_advice(pooled: str, database: str) -> None:
    store = SqlStore(f"{pooled}?prepared_statements=on")

    async def use_until_it_fails() -> None:
        for number in range(20):
            await store.open()
            await asyncio.gather(*(use(store, f"{number} {turn}") for turn in range(12)))

    with pytest.raises(StoreUnavailableError, match="prepared_statements=off"):
        await use_until_it_fails()
    await store.close()
