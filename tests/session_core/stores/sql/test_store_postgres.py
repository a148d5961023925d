"""The store contract on a real PostgreSQL, and faults of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex, SessionStore
from session_core.stores.guarded import GuardedStore
from session_core.stores.sql.statements import LOAD
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.sql.sql_faults import frozen, short_timeout
from tests.support.opened_store import opened_store
from tests.support.postgres_server import PostgresServer


async def _execute(url: str, *statements: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


class TestPostgresStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, database: str, postgres: PostgresServer) -> AsyncIterator[SessionStore]:
        self.server = postgres
        async with opened_store(SqlStore(database, clock=clock)) as store:
            yield store

    @asynccontextmanager
    async def stalled(self, store: SessionStore) -> AsyncIterator[None]:
        async with frozen(self.server):
            yield


@pytest.mark.anyio
class TestPostgresServer:
    async def test_many_processes_can_create_the_tables_at_once(self, database: str) -> None:
        stores = [SqlStore(database) for _ in range(8)]
        await asyncio.gather(*(store.open() for store in stores))
        for store in stores:
            assert await store.load("unknown") is None
            await store.close()

    async def test_the_store_works_with_any_default_isolation_of_the_database(self, database: str) -> None:
        """With a snapshot from before the lock, a limit would count outdated rows."""
        await _execute(database, "ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")
        try:
            store = SqlStore(database)
            await store.open()
            await asyncio.gather(*(store.create(f"k{i}", Entry(b"", 2**52, "u", None, i), limit=3) for i in range(20)))
            assert len(await store.find(SessionIndex(user="u"))) == 3
            await store.close()
        finally:
            await _execute(database, "ALTER DATABASE postgres RESET default_transaction_isolation")

    async def test_a_connection_lost_between_two_messages_is_replaced(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The driver then has no protocol and raises an undocumented error."""
        store = SqlStore(database, pool_size=1)
        await store.open()
        prepare = asyncpg.Connection._get_statement
        lost: list[asyncpg.Connection] = []

        async def lost_after_preparing(self: asyncpg.Connection, *args: Any, **options: Any) -> Any:
            statement = await prepare(self, *args, **options)
            if not lost and "FROM sessions" in args[0]:
                lost.append(self)
                self.terminate()
                await asyncio.sleep(0)
            return statement

        monkeypatch.setattr(asyncpg.Connection, "_get_statement", lost_after_preparing)
        async with store._database.pool.lend(monotonic() + 60) as link:
            with pytest.raises(asyncpg.ConnectionDoesNotExistError):
                await link.rows(LOAD, {"keys": ["k"], "now": 0})
        assert await store.claim("name", 2**52) is True
        await store.close()

    async def test_connections_closed_by_the_server_are_replaced(self, database: str) -> None:
        """A restarted server must neither log a user out nor require a restart of the application."""
        store = SqlStore(database, pool_size=3)
        await store.open()
        await store.create("k", Entry(b"data", 2**52))
        await asyncio.gather(*(store.load("k") for _ in range(10)))
        await _execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'",
        )
        for _ in range(5):
            assert await store.load("k") is not None
        assert await store.replace("k", Entry(b"new", 2**52), version=1) == 2
        await store.close()

    async def test_a_session_locked_by_another_client_is_an_outage_in_time(self, database: str) -> None:
        """No request hangs; afterwards everything works, and no transaction stays open on the server."""
        store = SqlStore(database)
        await store.open()
        await store.create("k", Entry(b"data", 2**52))
        engine = create_async_engine(database)
        async with engine.begin() as connection:
            await connection.execute(text("SELECT * FROM sessions FOR UPDATE"))
            with short_timeout(store), pytest.raises(StoreUnavailableError):
                await store.delete("k")
            assert await store.load("k") is not None
        assert await store.delete("k") == ("k",)
        async with engine.connect() as connection:
            idle = await connection.execute(text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"))
            assert idle.scalar_one() == 0
        await engine.dispose()
        await store.close()

    @pytest.mark.parametrize(
        ("change", "kind"),
        [
            ("nodb", "InvalidCatalogNameError 3D000"),
            ("nohost", "ConnectionRefusedError ECONNREFUSED"),
            ("nologin", "InvalidAuthorizationSpecificationError 28000"),
        ],
    )
    async def test_a_refusing_server_is_an_outage(self, postgres_url: str, change: str, kind: str) -> None:
        """Its address and password are not in the message."""
        url = {
            "nodb": postgres_url.replace("/postgres?", "/missing?"),
            "nohost": "postgresql+asyncpg://user:verysecret@127.0.0.1:1/db",
            "nologin": postgres_url.replace("postgres@", "unknown:verysecret@"),
        }[change]
        store = SqlStore(url)
        with pytest.raises(StoreUnavailableError) as caught:
            await store.open()
        assert "secret" not in str(caught.value)
        await store.close()
        told: list[str] = []

        async def tell(reason: str) -> None:
            told.append(reason)

        guarded = GuardedStore(SqlStore(url), timeout=20, on_outage=tell)
        with pytest.raises(StoreUnavailableError):
            await guarded.open()
        await guarded.close()
        assert told == [kind]
