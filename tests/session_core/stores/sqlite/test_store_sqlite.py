"""Sessions in one SQLite file: its URL, file mode, tables, and other programs that use it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from sqlalchemy import create_engine

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.announcements import RevocationFeed
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.opening import open_store
from session_core.stores.sql.schema import metadata
from session_core.stores.sqlite.store import SqliteStore
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio
FOREVER = 2**52


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened_store(SqliteStore(path, timeout=30)) as store:  # a loaded machine must not cause an outage
        yield store


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite+aiosqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+pysqlite:///file.db",
        "sqlite+nonsense:///file.db",
        "sqlite://host/file.db",
        "sqlite:///file.db?mode=ro",
        "file://",
        "file://host/directory",
        "file:///directory?mode=ro",
    ],
)
def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite", "SQLite"])
@pytest.mark.parametrize("name", ["app.db", "a b%20c#d&é.db"])
async def test_a_url_names_the_same_file_as_in_sqlalchemy(
    scheme: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application's tables are in the same file by default, so relative and absolute paths must mean the same to both."""
    monkeypatch.chdir(tmp_path)
    for path in (name, str(tmp_path / f"absolute {name}")):
        store = open_store(f"{scheme}:///{path}")
        await store.open()
        await store.close()
        assert (tmp_path / unquote(path)).is_file()
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar() == 0
        engine.dispose()


async def test_only_the_owner_can_read_the_file(store: SqliteStore, path: Path) -> None:
    await store.create("a", Entry(b"secret", FOREVER))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert modes == {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}


async def test_opening_a_file_keeps_the_locks_of_this_process(store: SqliteStore, path: Path) -> None:
    """POSIX drops every lock of a process on a file when the process closes it anywhere; another process would delete the log.

    The kernel lists them by inode: those on the file itself must still be there after a second store has opened it.
    """
    await store.create("a", Entry(b"", FOREVER))
    inode = path.stat().st_ino  # noqa: ASYNC240 - nothing else runs

    def locks() -> int:
        return sum(f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())

    before = locks()
    assert before > 0
    other = SqliteStore(path)
    await other.open()
    assert locks() >= before
    await other.close()
    assert locks() >= before


async def test_acknowledged_writes_are_on_disk(store: SqliteStore) -> None:
    """WAL mode, each commit synced: FULL is 2."""
    connection = store._opened()[1]._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_no_error_shows_a_value(store: SqliteStore, path: Path) -> None:
    """Neither in the message nor in that of its cause, which a log may show. When the tables return, so do the sessions."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("ALTER TABLE sessions RENAME TO hidden")
    for call in (
        store.create("thekey", Entry(b"thedata", FOREVER)),
        store.load("thekey"),
        store.find(SessionIndex(user="thekey")),
        store.delete("thekey"),
    ):
        with pytest.raises(StoreUnavailableError, match=r"unavailable \(SQLITE_ERROR\)$") as caught:
            await call
        told = f"{caught.value} {caught.value.__cause__}"
        assert "thekey" not in told
        assert "thedata" not in told
    other.execute("ALTER TABLE hidden RENAME TO sessions")
    other.close()
    await store.create("thekey", Entry(b"thedata", FOREVER))


async def test_a_file_that_is_not_a_database_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    path.write_bytes(b"not a database" * 1000)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailableError, match=r"\(SQLITE_NOTADB\)$"):
        await store.open()
    await store.close()


async def test_a_directory_that_cannot_be_created_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SqliteStore(tmp_path / "file" / "sessions.db")
    with pytest.raises(StoreUnavailableError) as caught:
        await store.open()
    assert str(tmp_path) not in str(caught.value)


async def test_a_foreign_table_is_refused(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, cookie TEXT)")
    other.close()
    store = SqliteStore(path)
    with pytest.raises(ConfigurationError, match=r"table sessions .* a separate file"):
        await store.open()


async def test_a_closed_store_is_an_outage(store: SqliteStore) -> None:
    await store.close()
    for call in (store.load("a"), store.ping(), store.claim("a", FOREVER), store.find(SessionIndex(user="a"))):
        with pytest.raises(StoreUnavailableError):
            await call
    await store.open()
    assert await store.load("a") is None


async def test_several_processes_can_create_the_file_at_once(path: Path) -> None:
    stores = [SqliteStore(path, timeout=30) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.load("unknown") is None
        await store.close()


async def test_the_file_opens_while_another_process_writes(store: SqliteStore, path: Path) -> None:
    """Existing tables need no lock; sessions are read at once."""
    await store.create("a", Entry(b"", FOREVER))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    second = SqliteStore(path, timeout=10)
    await second.open()
    assert await second.load("a") is not None
    other.close()
    await second.close()


async def test_the_tables_equal_those_of_the_other_databases(store: SqliteStore, path: Path) -> None:
    """A migration generated from the library's metadata is empty."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_files_of_the_earlier_store_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """They are never read as an empty store, which would silently log every user out."""
    (tmp_path / "old" / "sessions").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"one file for each session.* Delete the directory.*or name another one"):
        open_store(f"file://{tmp_path}/old")


async def test_the_file_is_created_in_an_existing_directory(tmp_path: Path) -> None:
    for _ in range(2):  # again, with its sessions
        store = open_store(f"file://{tmp_path}/private/sessions")
        assert isinstance(store, SqliteStore)
        await store.open()
        await store.claim("name", FOREVER)
        await store.close()
    assert [each.name for each in (tmp_path / "private" / "sessions").iterdir()] == ["sessions.db"]
    assert (tmp_path / "private" / "sessions").stat().st_mode & 0o777 == 0o700


def test_the_store_announces_nothing(path: Path) -> None:
    assert not isinstance(SqliteStore(path), RevocationFeed)
