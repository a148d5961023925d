"""One SQLite file holds the sessions and the application's tables, also in databases of the previous version."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from app.data.database import Database, migrate
from session_core import open_store
from session_core.stores.base import Entry, SessionIndex

FOREVER = 2**52
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.mark.parametrize("revision", ["0001", "head"])
async def test_a_database_of_the_previous_version_keeps_its_sessions(path: Path, revision: str) -> None:
    """Application tables come from migrations, session tables from the SQL store."""
    url = f"sqlite+aiosqlite:///{path}"
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["url"] = url
    await asyncio.to_thread(command.upgrade, config, revision)
    before = sqlite3.connect(path, isolation_level=None)
    columns = "key, version, data, expires_at, user_key, op_session_key, rank"
    before.execute(f"INSERT INTO sessions ({columns}) VALUES ('kept', 7, x'00ff', {FOREVER}, 'u', 'o', 3)")
    before.execute(f"INSERT INTO session_claims (name, expires_at) VALUES ('claimed', {FOREVER})")
    before.close()
    store = open_store(url)
    await store.open()
    stored = await store.load("kept")
    assert stored is not None
    assert (stored.version, stored.entry) == (7, Entry(b"\x00\xff", FOREVER, "u", "o", 3))
    assert await store.claim("claimed", FOREVER) is False
    assert await store.claim("new", FOREVER) is True
    assert await store.replace("kept", stored.entry, version=7) == 8
    await asyncio.to_thread(migrate, url)  # while the store is open
    assert await store.delete_by(SessionIndex(user="u")) == ("kept",)
    await store.close()


async def test_application_and_sessions_migrate_and_write_side_by_side(path: Path) -> None:
    url = f"sqlite+aiosqlite:///{path}"
    store = open_store(url)
    await store.open()
    await store.create("a", Entry(b"", FOREVER))
    await asyncio.to_thread(migrate, url)
    database = Database(url)
    await database.open()
    await database.ping()
    for version in range(1, 20):
        async with database.begin() as connection:
            await connection.exec_driver_sql("INSERT INTO audit_trail (at, event) VALUES (1, 'x')")
        assert await store.replace("a", Entry(b"", FOREVER), version=version) == version + 1
    await database.close()
    await store.close()


async def test_migrating_keeps_the_locks_of_the_open_store(path: Path) -> None:
    """POSIX drops a process's locks on a file when it closes any descriptor of it; another process could then delete the WAL."""
    url = f"sqlite+aiosqlite:///{path}"
    store = open_store(url)
    await store.open()
    inode = path.stat().st_ino  # noqa: ASYNC240 - nothing else runs

    def locks() -> int:
        return sum(f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())

    assert locks() > 0
    await asyncio.to_thread(migrate, url)
    assert locks() > 0
    await store.close()
