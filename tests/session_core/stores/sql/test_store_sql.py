"""What is special about sessions in a database: URLs, the SQLite file, outages, and statements for servers not at hand."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.opening import open_store
from session_core.stores.sql.schema import metadata, session_tables
from session_core.stores.sql.store import SqlStore

FOREVER = 2**52

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(f"sqlite+aiosqlite:///{path}", timeout=30)  # a loaded machine is no outage
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+pysqlite:///file.db",
        "postgresql+psycopg2://user:verysecret@host/db",
        "postgresql+nonsense://user:verysecret@host/db",
        "oracle://user:verysecret@host/db",
        "postgresql+asyncpg://user:verysecret@host:port/db",
    ],
)
def test_an_unfit_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SqlStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///file.db", "postgresql://user@host/db", "mysql://user@host/db"])
def test_a_url_without_a_driver_means_the_asynchronous_one(url: str) -> None:
    assert isinstance(open_store(url), SqlStore)


async def test_the_file_is_for_its_owner_only(store: SqlStore, path: Path) -> None:
    await store.create("a", Entry(b"secret", FOREVER))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert modes == {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}


async def test_acknowledged_writes_are_on_the_disk(store: SqlStore) -> None:
    """Write-ahead log, each commit synced: FULL is 2."""
    for engine in store._database._opened().all:
        async with engine.connect() as connection:
            assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
            assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == 2


async def test_a_checkpoint_is_made_beside_the_writers(path: Path) -> None:
    """The log is copied into the database long before SQLite would do it within somebody's commit."""
    store = SqlStore(f"sqlite+aiosqlite:///{path}")
    await store.open()
    for number in range(400):
        await store.create(str(number), Entry(bytes(1000), FOREVER))
    async with asyncio.timeout(60):
        while os.stat(path).st_size < 100_000:  # noqa: PTH116 - no blocking worth a thread
            await store.replace("0", Entry(bytes(1000), FOREVER), version=(await version_of(store, "0")))
    await store.close()


async def version_of(store: SqlStore, key: str) -> int:
    stored = await store.load(key)
    assert stored is not None
    return stored.version


async def test_a_writer_takes_the_lock_before_it_reads(store: SqlStore, path: Path) -> None:
    """The driver's own transactions begin with the first write, which is too late for a check."""
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    async with store._database._opened().transactions.begin():
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


async def test_a_lock_held_too_long_is_an_outage(path: Path) -> None:
    """Reads go on; writes say so in time, name no key, and work again afterwards."""
    store = SqlStore(f"sqlite+aiosqlite:///{path}", timeout=1)
    await store.open()
    await store.create("thekey", Entry(b"thedata", FOREVER, "u"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for call in (
        store.replace("thekey", Entry(b"thedata", FOREVER), version=1),
        store.delete("thekey"),
        store.claim("name", FOREVER),
        store.ping(),
    ):
        with pytest.raises(StoreUnavailableError) as caught:
            await call
        assert "the" not in str(caught.value).replace("the sqlite session store", "")
    assert await store.load("thekey") is not None
    other.execute("ROLLBACK")
    other.close()
    await store.ping()
    assert await store.delete("thekey") == ("thekey",)
    await store.close()


async def test_a_short_lock_is_waited_for(path: Path) -> None:
    store = SqlStore(f"sqlite+aiosqlite:///{path}")
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    claiming = asyncio.create_task(store.claim("name", FOREVER))
    assert await store.load("a") is None
    other.execute("ROLLBACK")
    other.close()
    assert await claiming
    await store.close()


async def test_no_driver_error_shows_a_value(store: SqlStore, path: Path) -> None:
    """Not in the message, nor in that of the cause, which a log may show."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("DROP TABLE sessions")
    other.close()
    with pytest.raises(StoreUnavailableError) as caught:
        await store.create("thekey", Entry(b"thedata", FOREVER))
    told = f"{caught.value} {caught.value.__cause__} {caught.value.__cause__.__cause__}"
    assert "thekey" not in told
    assert "thedata" not in told


async def test_a_file_that_is_no_database_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    path.write_bytes(b"not a database" * 1000)
    store = SqlStore(f"sqlite+aiosqlite:///{path}")
    with pytest.raises(StoreUnavailableError, match=r"\(SQLITE_NOTADB\)$"):
        await store.open()
    await store.close()


async def test_a_directory_that_cannot_be_made_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SqlStore(f"sqlite+aiosqlite:///{tmp_path}/file/sessions.db")
    with pytest.raises(StoreUnavailableError) as caught:
        await store.open()
    assert str(tmp_path) not in str(caught.value)


async def test_a_store_that_is_not_open_is_an_outage(store: SqlStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await store.load("a")
    await store.open()
    assert await store.load("a") is None


async def test_tables_can_be_left_to_migrations(path: Path) -> None:
    """Then it is said at once that they are missing, and what to do."""
    store = SqlStore(f"sqlite+aiosqlite:///{path}", create_tables=False)
    with pytest.raises(ConfigurationError, match="alembic upgrade head"):
        await store.open()
    await store.close()
    assert sorted(metadata.tables) == ["session_claims", "sessions"]


async def test_many_processes_may_create_the_file_at_once(path: Path) -> None:
    stores = [SqlStore(f"sqlite+aiosqlite:///{path}") for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.ping()
        await store.close()


async def test_a_user_with_very_many_sessions_can_be_logged_out(store: SqlStore) -> None:
    """More keys than one statement can take."""
    async with store._database._opened().transactions.begin() as connection:
        columns = {"version": 1, "data": b"", "expires_at": FOREVER, "user_key": "u", "rank": 0}
        await connection.execute(metadata.tables["sessions"].insert(), [{"key": str(n), **columns} for n in range(1100)])
    assert len(await store.delete_by(SessionIndex(user="u"))) == 1100


def test_mysql_tells_keys_apart_by_case_and_takes_large_data() -> None:
    ddl = str(CreateTable(metadata.tables["sessions"]).compile(dialect=mysql.dialect()))
    assert "`key` VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin" in ddl
    assert "data LONGBLOB" in ddl


def test_the_tables_can_be_added_to_a_metadata_of_ones_own() -> None:
    own = MetaData()
    session_tables(own)
    assert sorted(own.tables) == sorted(metadata.tables)
    assert all(own.tables[name] is not table for name, table in metadata.tables.items())
