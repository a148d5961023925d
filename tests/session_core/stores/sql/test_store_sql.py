"""Sessions on a database server: outages, errors without values, tables, users with many sessions."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from sqlalchemy import MetaData
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql.link import Link
from session_core.stores.sql.mysql import MysqlLink
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.schema import metadata, session_tables
from session_core.stores.sql.statements import DELETE_KEYS, Statement
from session_core.stores.sql.store import SqlStore
from tests.session_core.stores.sql.sql_faults import Server
from tests.support.postgres_server import PostgresServer

FOREVER = 2**52
MANY = 10_000

pytestmark = pytest.mark.anyio


async def script(store: SqlStore, *texts: str) -> None:
    async with store._database.pool.lend(monotonic() + 60) as link:
        for text in texts:
            await link.script(text.replace('"', "`") if link.dialect == "mysql" else text)


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


async def test_a_user_with_very_many_sessions_does_not_block_others(sql_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing and ending run in chunks with other requests in between, and the size of a chunk is bounded."""
    store = SqlStore(sql_server.url, timeout=60)
    await store.open()
    rows = ", ".join(f"('{number}', 1, '', {FOREVER}, 'u', 0)" for number in range(MANY))
    await script(store, f'INSERT INTO sessions ("key", version, data, expires_at, user_key, "rank") VALUES {rows}')
    deleted: list[int] = []

    def counted(count: object) -> object:
        async def run(link: Link, statement: Statement, values: dict[str, list[str]]) -> int:
            changed: int = await count(link, statement, values)  # type: ignore[operator]
            if statement is DELETE_KEYS:
                deleted.append(len(values["keys"]))
                assert changed == deleted[-1]
            return changed

        return run

    for kind in (PostgresqlLink, MysqlLink):
        monkeypatch.setattr(kind, "count", counted(kind.count))
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
    assert len(await store.delete_by(SessionIndex(user="u"))) == MANY
    assert max(deleted) <= 500
    assert turns >= MANY // 500
    counting.cancel()
    await store.close()


def test_mysql_keys_are_case_sensitive_and_data_can_be_large() -> None:
    ddl = str(CreateTable(metadata.tables["sessions"]).compile(dialect=mysql.dialect()))
    assert "`key` VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin" in ddl
    assert "data LONGBLOB" in ddl


def test_the_tables_can_be_added_to_the_applications_metadata() -> None:
    own = MetaData()
    session_tables(own)
    assert sorted(own.tables) == sorted(metadata.tables)
    assert all(own.tables[name] is not table for name, table in metadata.tables.items())
