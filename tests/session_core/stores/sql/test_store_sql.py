"""Sessions on a database server: outages, errors without values, tables, users with many sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql import steps
from session_core.stores.sql.database import Earlier
from session_core.stores.sql.link import Late, Link
from session_core.stores.sql.mysql import MysqlLink
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.schema import metadata, session_tables
from session_core.stores.sql.statements import COUNT_OTHERS, DELETE_KEYS, END_SOME_OF, KEYS_OF_OTHERS, Statement
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock
from tests.session_core.stores.sql.sql_faults import Server
from tests.support.opened_store import opened_store
from tests.support.postgres_server import PostgresServer

FOREVER = 2**52
MANY = 10_000

pytestmark = pytest.mark.anyio


async def script(store: SqlStore, *texts: str) -> None:
    async with store._database.pool.lend(monotonic() + 60) as link:
        for text in texts:
            await link.script(text.replace('"', "`") if link.dialect == "mysql" else text)


def noting_deletes(count: Any, deleted: list[int]) -> Any:
    """`Link.count`, which notes how many rows each DELETE takes."""

    async def run(link: Link, statement: Statement, values: dict[str, list[str]]) -> int:
        changed: int = await count(link, statement, values)
        if statement is DELETE_KEYS:
            deleted.append(len(values["keys"]))
            assert changed == deleted[-1]
        return changed

    return run


def noting_ends(rows: Any, deleted: list[int]) -> Any:
    """`Link.rows`, which notes how many sessions of an index a statement of PostgreSQL ends at most."""

    async def run(link: Link, statement: Statement, values: dict[str, Any]) -> Sequence[Sequence[Any]]:
        found: Sequence[Sequence[Any]] = await rows(link, statement, values)
        if link.dialect == "postgresql" and statement in END_SOME_OF.values():
            deleted.append(len(found))
        return found

    return run


async def test_no_driver_error_shows_a_value(sql_server: Server) -> None:
    """Neither in the message nor in that of its cause, which a log may show."""
    store = SqlStore(sql_server.url)
    await store.open()
    await script(store, "DROP TABLE sessions")
    with pytest.raises(StoreUnavailableError, match="migrate the database") as caught:
        await store.create("thekey", Entry(b"thedata", FOREVER))
    assert "thekey" not in str(caught.value)
    assert "thedata" not in f"{caught.value} {caught.value.__cause__}"
    await store.close()


async def test_a_closed_store_is_an_outage(sql_server: Server) -> None:
    store = SqlStore(sql_server.url)
    calls = (lambda: store.load("a"), lambda: store.claim("a", FOREVER), lambda: store.replace("a", Entry(b"", 1), version=1))
    for _ in range(2):
        for call in calls:
            with pytest.raises(StoreUnavailableError) as caught:
                await call()
            assert caught.value.not_applied
        await store.open()
        assert await store.load("a") is None
        await store.close()


async def test_tables_can_be_left_to_migrations(sql_server: Server) -> None:
    """Missing tables are then reported at once, with the remedy."""
    store = SqlStore(sql_server.url, create_tables=False)
    with pytest.raises(ConfigurationError, match="alembic upgrade head"):
        await store.open()
    await store.close()
    assert sorted(metadata.tables) == ["session_claims", "sessions"]


async def test_many_processes_can_create_the_tables_at_once(sql_server: Server) -> None:
    stores = [SqlStore(sql_server.url, timeout=20) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.load("unknown") is None
        await store.close()


async def test_a_role_without_create_permission_can_use_the_tables(sql_server: Server) -> None:
    """An application's role need not own the tables."""
    owner = SqlStore(sql_server.url)
    await owner.open()
    if isinstance(sql_server, PostgresServer):
        await script(owner, "DROP ROLE IF EXISTS app", "CREATE ROLE app LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        await script(owner, "GRANT SELECT, INSERT, UPDATE, DELETE ON sessions, session_claims TO app")
        url = sql_server.url.replace("postgres@", "app@")
    else:
        await script(owner, "CREATE OR REPLACE USER app", "GRANT SELECT, INSERT, UPDATE, DELETE ON sessions.* TO app")
        url = sql_server.url.replace("root@", "app@")
    store = SqlStore(url)
    await store.open()
    await store.create("k", Entry(b"", FOREVER, "u"), limit=1)
    assert await store.replace("k", Entry(b"", FOREVER, "u"), version=1) == 2
    assert await store.delete_by(SessionIndex(user="u")) == ("k",)
    await store.close()
    if isinstance(sql_server, PostgresServer):
        await script(owner, "DROP OWNED BY app", "DROP ROLE app")
    await owner.close()


@pytest.mark.parametrize("version", [1, 1000])
async def test_a_late_change_is_an_outage_and_no_conflict(sql_server: Server, version: int) -> None:
    """A conflict would be retried, an end would log the user out."""
    async with opened_store(SqlStore(sql_server.url, timeout=60)) as store:
        await store.create("replaced", Entry(b"kept", FOREVER))
        await store.create("old", Entry(b"kept", FOREVER))
        async with store._database.pool.lend(monotonic() + 60) as link:
            await link.script(f"UPDATE sessions SET version = {version}")

            async def late(step: Callable[..., Awaitable[object]], **values: object) -> None:
                link.deadline = monotonic() + 60
                await link.begin()
                link.deadline = monotonic() - 0.001
                await step(link, Earlier(), entry=Entry(b"late", FOREVER), version=version, now=0, **values)
                await link.commit()

            with pytest.raises(Late):
                await late(steps.overwrite, key="replaced")
            await link.rollback()
            with pytest.raises(Late):
                await late(steps.move, old_key="old", new_key="new", successor_until=FOREVER)
            await link.rollback()
        assert {stored.entry.data async for stored in store.scan()} == {b"kept"}


@pytest.mark.parametrize("late", [0, 1, 1000])
async def test_an_expired_former_key_ends_no_session(late: int, sql_server: Server) -> None:
    clock = FakeClock()
    async with opened_store(SqlStore(sql_server.url, clock=clock)) as store:
        await store.create("old", Entry(b"", FOREVER))
        await store.rotate("old", "new", Entry(b"", FOREVER), version=1, successor_until=clock.now() + 1000)
        clock.advance(seconds=1 + late / 1000)
        assert await store.delete("old") == ()
        assert await store.load("new") is not None


async def test_the_end_of_a_session_that_was_rotated_often_leaves_no_row(
    sql_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are deleted by several statements."""
    monkeypatch.setattr(steps, "AT_ONCE", 2)
    keys = list("abcdef")
    async with opened_store(SqlStore(sql_server.url, timeout=60)) as store:
        await store.create("a", Entry(b"", FOREVER))
        for old, new in pairwise(keys):
            await store.rotate(old, new, Entry(b"", FOREVER), version=1, successor_until=FOREVER)
        assert await store.delete("a") == ("f",)
        assert await store.trace(keys) == {}


@pytest.mark.parametrize("sessions", [2, 3, 4, 5, 6, 9])
async def test_a_login_near_the_limit_ends_the_sessions_above_it(
    sessions: int, sql_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few of them end in the login's transaction; many end in several transactions before it."""
    monkeypatch.setattr(steps, "AT_ONCE", 1)
    async with opened_store(SqlStore(sql_server.url, timeout=60)) as store:
        for rank in range(sessions):
            await store.create(f"k{rank}", Entry(b"", FOREVER, "user", None, rank))
        ended = await store.create("new", Entry(b"", FOREVER, "user", None, sessions), limit=4)
        assert sorted(ended) == [f"k{rank}" for rank in range(sessions - 3)]
        assert len(await store.find(SessionIndex(user="user"))) == min(sessions + 1, 4)


def test_all_versions_of_the_library_lock_the_same_number_for_a_name() -> None:
    """During a rolling deployment two versions share a database."""
    assert (steps.lock_number("alice"), steps.lock_number("bob")) == ("7334112565275333667", "-7255192790611781400")


@pytest.mark.parametrize("logouts", [1, 2])
async def test_a_login_at_the_limit_counts_no_session_that_a_logout_ends_meanwhile(
    logouts: int, sql_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_without_locks = COUNT_OTHERS if isinstance(sql_server, PostgresServer) else KEYS_OF_OTHERS
    keys = ["a", "b", "c", "d"]
    async with opened_store(SqlStore(sql_server.url, timeout=60)) as store, opened_store(SqlStore(sql_server.url)) as other:
        for rank, key in enumerate(keys):
            await store.create(key, Entry(b"", FOREVER, "user", None, rank))

        def interrupted(rows: Any) -> Any:
            async def run(link: Link, statement: Statement, values: Any) -> Any:
                found = await rows(link, statement, values)
                if statement is last_without_locks:
                    for key in keys[-logouts:]:
                        assert await other.delete(key) == (key,)
                return found

            return run

        for kind in (PostgresqlLink, MysqlLink):
            monkeypatch.setattr(kind, "rows", interrupted(kind.rows))
        assert await store.create("new", Entry(b"", FOREVER, "user", None, 4), limit=4) == ()
        assert {stored.key for stored in await store.find(SessionIndex(user="user"))} == {"new", *keys[:-logouts]}


async def test_a_user_with_very_many_sessions_does_not_block_others(sql_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing and ending run in chunks with other requests in between, and the size of a chunk is bounded."""
    async with opened_store(SqlStore(sql_server.url, timeout=60)) as store:
        rows = ", ".join(f"('{number}', 1, '', {FOREVER}, 'u', 0)" for number in range(MANY))
        await script(store, f'INSERT INTO sessions ("key", version, data, expires_at, user_key, "rank") VALUES {rows}')
        deleted: list[int] = []
        commits = 0

        def noted(commit: object) -> object:
            async def run(link: Link) -> None:
                nonlocal commits
                commits += 1
                assert len(deleted) <= commits, "several statements in one transaction"
                await commit(link)  # type: ignore[operator]

            return run

        for kind in (PostgresqlLink, MysqlLink):
            monkeypatch.setattr(kind, "count", noting_deletes(kind.count, deleted))
            monkeypatch.setattr(kind, "rows", noting_ends(kind.rows, deleted))
            monkeypatch.setattr(kind, "commit", noted(kind.commit))
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        assert len(await store.find(SessionIndex(user="u"))) == MANY
        assert turns >= MANY // 500
        turns = 0
        assert len(set(await store.delete_by(SessionIndex(user="u")))) == MANY
        assert max(deleted) <= steps.AT_ONCE
        assert turns >= MANY // steps.AT_ONCE
        counting.cancel()


@pytest.mark.parametrize("index", [SessionIndex(user="u"), SessionIndex(op_session="o")], ids=["user", "op_session"])
async def test_a_session_rotated_between_two_transactions_is_ended_too(
    sql_server: Server, index: SessionIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "AT_ONCE", 2)
    async with opened_store(SqlStore(sql_server.url, timeout=20)) as store:
        entry = Entry(b"", FOREVER, "u", "o")
        for key in "abcdef":
            await store.create(key, entry)
        run, rotated = store._database.transact, ""

        async def then_rotate(*arguments: Any, **options: Any) -> Any:
            nonlocal rotated
            result = await run(*arguments, **options)
            if not rotated:
                left = sorted(stored.key for stored in await store.find(SessionIndex(user="u")) if stored.key != "c")
                assert len(left) == 3, "a transaction was to end two"
                rotated = left[-1]
                monkeypatch.setattr(store._database, "transact", run)
                await store.rotate(rotated, "0", entry, version=1, successor_until=FOREVER)
                monkeypatch.setattr(store._database, "transact", then_rotate)
            return result

        monkeypatch.setattr(store._database, "transact", then_rotate)
        ended = await store.delete_by(index, keep="c")
        assert sorted(ended) == sorted({*"abdef", "0"} - {rotated})
        assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == ["c"]


async def test_a_call_that_fails_half_way_has_ended_some_sessions_and_can_be_repeated(
    sql_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error does not claim that nothing was applied."""
    monkeypatch.setattr(steps, "AT_ONCE", 2)
    async with opened_store(SqlStore(sql_server.url, timeout=20)) as store:
        for key in "abcde":
            await store.create(key, Entry(b"", FOREVER, "u"))
        run = store._database.transact
        deadlines: list[float] = []

        async def fail_at_second(*arguments: Any, deadline: float) -> Any:
            deadlines.append(deadline)
            if len(deadlines) == 2:
                raise StoreUnavailableError(not_applied=True)
            return await run(*arguments, deadline=deadline)

        monkeypatch.setattr(store._database, "transact", fail_at_second)
        with pytest.raises(StoreUnavailableError) as caught:
            await store.delete_by(SessionIndex(user="u"))
        assert not caught.value.not_applied
        assert len(set(deadlines)) == 1, "all transactions of a call have its deadline"
        assert len(await store.find(SessionIndex(user="u"))) == 3
        assert len(await store.delete_by(SessionIndex(user="u"))) == 3


@pytest.mark.parametrize("kind", ["create", "rotate"])
async def test_a_login_after_the_limit_was_lowered(sql_server: Server, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions above the limit end in several transactions, those of the lowest rank first; afterwards the limit holds."""
    monkeypatch.setattr(steps, "AT_ONCE", 2)
    deleted: list[int] = []
    for link in (PostgresqlLink, MysqlLink):
        monkeypatch.setattr(link, "count", noting_deletes(link.count, deleted))
    async with opened_store(SqlStore(sql_server.url, timeout=20)) as store:
        for rank, key in enumerate("ihgfedcba"):
            await store.create(key, Entry(b"", FOREVER, "u", None, rank))
        await store.create("other", Entry(b"", FOREVER, "another"))
        login = Entry(b"", FOREVER, "u", None, 0)
        if kind == "create":
            ended = await store.create("new", login, limit=3)
        else:  # the session that logs in has the lowest rank, and is kept
            ended = await store.rotate("i", "new", login, version=1, successor_until=FOREVER, limit=3)
        assert ended == tuple("ihgfedc" if kind == "create" else "hgfedc")
        assert {stored.key for stored in await store.find(SessionIndex(user="u"))} == {"new", "a", "b"}
        assert await store.load("other") is not None
    assert max(deleted) == 2


def test_mysql_keys_are_case_sensitive_and_data_can_be_large() -> None:
    ddl = str(CreateTable(metadata.tables["sessions"]).compile(dialect=mysql.dialect()))
    assert "`key` VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin" in ddl
    assert "data LONGBLOB" in ddl


def test_the_tables_can_be_added_to_the_applications_metadata() -> None:
    own = MetaData()
    session_tables(own)
    assert sorted(own.tables) == sorted(metadata.tables)
    assert all(own.tables[name] is not table for name, table in metadata.tables.items())
