"""Sweeping a SQL database while it is used: in small steps, by many nodes at once, in nobody's way.

How long a request waits at most is measured by `benchmarks/sweep.py`; here is what makes it short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from session_core.stores import sql_steps as steps
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql import SqlStore
from session_core.stores.sql_schema import claims, sessions
from tests.stores.mariadb_server import MariadbServer
from tests.stores.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio
FOREVER = 2**52
MOST = 100
"""Rows that one transaction may delete."""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(url)
    await store.open()
    yield store
    await store.close()


async def fill(store: SqlStore, rows: int) -> None:
    """Expired sessions of one user."""
    columns = {"version": 1, "data": b"", "expires_at": 1, "user_key": "user", "op_session_key": "op", "rank": 0}
    async with store._database._opened().transactions.begin() as connection:
        await connection.execute(sessions.insert(), [{"key": f"over{number}", **columns} for number in range(rows)])


class Deleted:
    """How many rows each transaction deleted."""

    def __init__(self, store: SqlStore) -> None:
        self.by_transaction: list[int] = []
        self._open = 0
        engine = store._database._opened().transactions.sync_engine
        event.listen(engine, "after_cursor_execute", self._executed)
        event.listen(engine, "commit", self._committed)

    def _executed(self, connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        if statement.startswith("DELETE"):
            self._open += cursor.rowcount

    def _committed(self, connection: Any) -> None:
        if self._open:
            self.by_transaction.append(self._open)
        self._open = 0


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue({"postgres": "database", "mariadb": "mariadb_url"}[request.param]))


async def test_no_transaction_deletes_more_than_a_few_rows(url: str) -> None:
    async with opened(url) as store:
        await fill(store, 2 * MOST + 50)
        await store.claim("over", 1)
        deleted = Deleted(store)
        assert await store.delete_expired() == 2 * MOST + 50 + 1
        assert deleted.by_transaction == [MOST, MOST, 50, 1]


async def test_a_sweeper_in_the_middle_keeps_no_other_waiting(sql_server: PostgresServer | MariadbServer) -> None:
    """They share the rows: what one has taken the other passes over."""
    async with opened(sql_server.url) as one, opened(sql_server.url) as two:
        await fill(one, 100)
        async with one._database._opened().transactions.begin() as connection:
            taken = await steps.remove_expired(connection, sessions, 40, FOREVER - 1)
            assert len(taken) == 40
            async with asyncio.timeout(30):
                assert await two.delete_expired() == 60
        assert await two.delete_expired() == 0


async def test_requests_go_on_beside_a_sweeper_in_the_middle(sql_server: PostgresServer | MariadbServer) -> None:
    """Those of the very user whose old sessions are being removed, and every kind of them."""
    async with opened(sql_server.url) as sweeper, opened(sql_server.url) as store:
        await fill(sweeper, 50)
        await sweeper.claim("over", 1)
        entry = Entry(b"", FOREVER, "user", "op")
        await store.create("live", entry)
        async with sweeper._database._opened().transactions.begin() as connection:
            now = store._clock.now()
            assert len(await steps.remove_expired(connection, sessions, 50, now)) == 50
            assert len(await steps.remove_expired(connection, claims, 50, now)) == 1
            async with asyncio.timeout(30):
                assert await store.load("live") is not None
                assert await store.replace("live", entry, version=1) == 2
                assert await store.touch("live", FOREVER + 1)
                assert await store.create("login", entry, limit=2) == ()
                assert await store.rotate("login", "new", entry, version=1, successor_until=FOREVER, limit=2) == ()
                assert len(await store.find(SessionIndex(user="user"))) == 2
                assert await store.claim("name", FOREVER)
                assert await store.delete("new") == ("new",)
                assert await store.delete_by(SessionIndex(op_session="op")) == ("live",)


async def test_a_session_in_use_is_passed_over_and_not_waited_for(sql_server: PostgresServer | MariadbServer) -> None:
    async with opened(sql_server.url) as sweeper, opened(sql_server.url) as store:
        await fill(sweeper, 3)
        async with store._database._opened().transactions.begin() as connection:
            await connection.execute(sessions.update().where(sessions.c.key == "over1").values(version=2))
            async with asyncio.timeout(30):
                assert await sweeper.delete_expired() == 2
        assert await sweeper.delete_expired() == 1
