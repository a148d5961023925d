"""Sweeping a SQL database in use: in small steps, by many nodes at once, without delaying requests.

`benchmarks/sweeping.py` measures the longest wait of a request; these tests check the rules that keep it short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql.expiry import Pace, remove_some
from session_core.stores.sql.link import Link
from session_core.stores.sql.mysql import MysqlLink
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.statements import Statement
from session_core.stores.sql.store import SqlStore
from tests.support.mariadb_server import MariadbServer
from tests.support.opened_store import opened_store
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio
FOREVER = 2**52
MOST = 100
"""Maximum rows of one step."""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(url)
    async with opened_store(store):
        yield store


async def fill(store: SqlStore, rows: int) -> None:
    """Expired sessions of one user."""
    values = ", ".join(f"('over{number}', 1, '', 1, 'user', 'op', 0)" for number in range(rows))
    async with transaction(store) as link:
        rank, key = ('"rank"', '"key"') if link.dialect == "postgresql" else ("`rank`", "`key`")
        columns = f"{key}, version, data, expires_at, user_key, op_session_key, {rank}"
        await link.script(f"INSERT INTO sessions ({columns}) VALUES {values}")


@asynccontextmanager
async def transaction(store: SqlStore) -> AsyncIterator[Link]:
    async with store._database.pool.lend(monotonic() + 60) as link:
        await link.begin()
        yield link
        await link.commit()


class Watched:
    """Records the rows and statements of a store's sweep steps, with a clock that only these steps and rests advance.

    A row takes `seconds_a_row`. A rest is recorded and returns at once.
    """

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch, seconds_a_row: float = 0.0) -> None:
        self.deleted: list[int] = []
        self.statements: list[int] = []
        self.rests: list[float] = []
        self.seconds_a_row = seconds_a_row
        self._now = 0.0
        self._deleted = self._executed = 0
        store._pace = Pace(lambda: self._now, self._rest)
        for kind in (PostgresqlLink, MysqlLink):
            monkeypatch.setattr(kind, "rows", self._counted(kind.rows))
            monkeypatch.setattr(kind, "count", self._counted(kind.count))

    async def _rest(self, seconds: float) -> None:
        if self._deleted:
            self.deleted.append(self._deleted)
            self.statements.append(self._executed)
        self._deleted = self._executed = 0
        self.rests.append(seconds)
        self._now += seconds

    def _counted(self, run: Any) -> Any:
        async def counted(link: Link, statement: Statement, values: Any) -> Any:
            result = await run(link, statement, values)
            self._executed += 1
            if statement.mysql[0].startswith("DELETE"):
                self._deleted += result
                self._now += result * self.seconds_a_row
            return result

        return counted


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"postgres": "database", "mariadb": "mariadb_url"}[request.param]))


async def test_no_step_deletes_more_than_a_few_rows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url) as store:
        await fill(store, 300)
        await store.claim("over", 1)
        watched = Watched(store, monkeypatch)
        assert await store.delete_expired() == 301
        assert watched.deleted == [25, 50, MOST, MOST, 25, 1]


async def test_the_size_of_a_step_adapts_to_its_duration(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds per row occur with a syncing disk or a busy machine. The size grows again afterwards."""
    async with opened(url) as store:
        await fill(store, 400)
        watched = Watched(store, monkeypatch)
        await store.delete_expired(75)
        watched.seconds_a_row = 0.001
        await store.delete_expired(200)
        watched.seconds_a_row = 0.0
        await store.delete_expired()
        assert watched.deleted == [25, 50, 100, 50, 25, 25, 25, 50, 50]


async def test_after_each_step_a_sweep_pauses_as_long_as_the_step_took(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url) as store:
        await fill(store, 75)
        watched = Watched(store, monkeypatch, seconds_a_row=0.001)
        await store.delete_expired()
        assert watched.rests == pytest.approx([0.025, 0.025, 0.025])
        await fill(store, 25)
        watched.seconds_a_row = 1.0
        await store.delete_expired()
        assert watched.rests[3:] == [1.0]


async def test_a_call_ends_within_its_callers_timeout(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With at least one row: zero would mean that nothing is left."""
    async with opened(url) as store:
        await fill(store, 60)
        watched = Watched(store, monkeypatch, seconds_a_row=0.5)
        assert [await store.delete_expired() for _ in range(4)] == [25, 25, 10, 0]
        assert len(watched.deleted) == 3


async def test_no_lock_is_held_between_two_statements(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction keeps its locks, and SQLite's only writer, while the event loop is busy elsewhere; one statement does not.

    MySQL alone needs more, because its DELETE cannot skip locked rows.
    """
    async with opened(url) as store:
        await fill(store, 75)
        watched = Watched(store, monkeypatch)
        await store.delete_expired()
        assert watched.statements == ([3, 3] if "mysql" in url else [1, 1])


async def test_a_step_does_not_read_rows_deleted_by_earlier_steps(database: str) -> None:
    """PostgreSQL uses the expiry index even when nearly all rows have expired and a sequential scan would be possible."""
    scans = Statement("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'sessions'")
    async with opened(database) as store:
        await fill(store, 5000)
        async with transaction(store) as link:
            await link.script("ANALYZE sessions")
            before = await link.rows(scans, {})
            for _ in range(10):  # PostgreSQL uses a generic plan from the sixth execution on
                assert await remove_some(link, "sessions", MOST, FOREVER - 1) == (MOST, MOST)
            assert await link.rows(scans, {}) == before


async def test_only_the_commit_of_a_sweep_skips_the_disk_sync(database: str) -> None:
    """The setting applies at the commit, for the sweep's transaction only, not for its connection."""
    setting = Statement("SHOW synchronous_commit")
    async with opened(database) as store:
        await fill(store, 2)
        async with transaction(store) as link:
            assert await remove_some(link, "sessions", 1, FOREVER - 1) == (1, 1)
            assert [row[0] for row in await link.rows(setting, {})] == ["off"]
        async with transaction(store) as link:
            assert [row[0] for row in await link.rows(setting, {})] == ["on"]


async def test_a_sweeper_in_progress_does_not_block_another(sql_server: PostgresServer | MariadbServer) -> None:
    """They share the rows: each skips rows locked by the other."""
    async with opened(sql_server.url) as one, opened(sql_server.url) as two:
        await fill(one, 100)
        async with transaction(one) as link:
            assert await remove_some(link, "sessions", 40, FOREVER - 1) == (40, 40)
            async with asyncio.timeout(30):
                assert await two.delete_expired() == 60
        assert await two.delete_expired() == 0


async def test_requests_continue_beside_a_sweeper_in_progress(sql_server: PostgresServer | MariadbServer) -> None:
    """Requests of all kinds, by the user whose old sessions are being removed."""
    async with opened(sql_server.url) as sweeper, opened(sql_server.url) as store:
        await fill(sweeper, 50)
        await sweeper.claim("over", 1)
        entry = Entry(b"", FOREVER, "user", "op")
        await store.create("live", entry)
        async with transaction(sweeper) as link:
            now = store._clock.now()
            assert await remove_some(link, "sessions", 50, now) == (50, 50)
            assert await remove_some(link, "session_claims", 50, now) == (1, 1)
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


async def test_a_locked_session_is_skipped_without_waiting(sql_server: PostgresServer | MariadbServer) -> None:
    async with opened(sql_server.url) as sweeper, opened(sql_server.url) as store:
        await fill(sweeper, 3)
        async with transaction(store) as link:
            key = '"key"' if link.dialect == "postgresql" else "`key`"
            await link.script(f"UPDATE sessions SET version = 2 WHERE {key} = 'over1'")
            async with asyncio.timeout(30):
                assert await sweeper.delete_expired() == 2
        assert await sweeper.delete_expired() == 1
