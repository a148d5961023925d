"""The store contract on a real MariaDB, and faults of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from session_core.stores.base import Entry, SessionStore
from session_core.stores.sql.statements import Statement
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.sql.sql_faults import frozen
from tests.support.mariadb_server import MariadbServer
from tests.support.opened_store import opened_store


class TestMariadbStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, mariadb_url: str, mariadb: MariadbServer) -> AsyncIterator[SessionStore]:
        self.server = mariadb
        async with opened_store(SqlStore(mariadb_url, clock=clock)) as store:
            yield store

    @asynccontextmanager
    async def stalled(self, store: SessionStore) -> AsyncIterator[None]:
        async with frozen(self.server):
            yield


@pytest.mark.anyio
async def test_the_row_of_a_lock_is_swept_after_an_hour(clock: FakeClock, mariadb_url: str) -> None:
    rows = Statement("SELECT name FROM session_claims")
    async with opened_store(SqlStore(mariadb_url, clock=clock)) as store:
        await store.create("key", Entry(b"", 2**52, "alice"), limit=1)
        await store.delete_expired()
        assert [tuple(row) for row in await store._database.read(rows, {})] == [("lock:alice",)]
        clock.advance(hours=1)
        await store.delete_expired()
        assert list(await store._database.read(rows, {})) == []
