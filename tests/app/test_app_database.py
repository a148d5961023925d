"""Migrations and users: the tables are what the code expects, in every way they can come about."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine

from app.data.database import SCHEMA_REVISION, Database, DatabaseUnavailableError, migrate
from app.data.tables import metadata
from app.data.users import Users
from session_core import Identity, open_store
from session_core.stores.sql.schema import metadata as session_metadata
from session_core.testing import FakeClock
from tests.app.conftest import ISSUER, Running

ROOT = Path(__file__).resolve().parents[2]


def test_the_revision_in_the_code_is_the_newest_migration() -> None:
    config = Config(ROOT / "alembic.ini")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_REVISION


def test_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    migrate(f"sqlite+aiosqlite:///{file}")
    together = MetaData()
    for part in (metadata, session_metadata):
        for table in part.sorted_tables:
            table.to_metadata(together)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), together))

    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        assert differences(connection) == []
    engine.dispose()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_that_migrate_together_do_it_once(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    code = f"from app.data.database import migrate; migrate({url!r})"
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False), range(3)))
    assert [result.returncode for result in results] == [0, 0, 0]


@pytest.mark.anyio
async def test_a_store_that_was_opened_first_is_no_obstacle(tmp_path: Path, clock: FakeClock) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    store = open_store(url, clock=clock)
    await store.open()
    await asyncio.to_thread(migrate, url)
    await store.ping()
    await store.close()


def test_alembic_migrates_the_database_of_the_settings_and_back(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'b.db'}"}
    for arguments in (["upgrade", "head"], ["check"], ["downgrade", "base"], ["upgrade", "head"]):
        command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "b.db").exists()


@pytest.mark.anyio
async def test_a_database_without_tables_is_not_ready_and_says_what_to_do(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    await database.open()
    with pytest.raises(DatabaseUnavailableError, match="alembic upgrade head"):
        await database.ping()
    await database.close()


@pytest.mark.anyio
async def test_first_logins_at_the_same_time_make_one_user(running: Running) -> None:
    identity = Identity(issuer=ISSUER, subject="new")
    users = running.services.users
    await asyncio.gather(*(users.remember(identity, {"name": f"Name {number}"}) for number in range(10)))
    assert len(await users.search("name")) == 1


@pytest.mark.anyio
async def test_claims_are_taken_for_what_they_are_and_no_more(running: Running) -> None:
    users: Users = running.services.users
    identity = Identity(issuer=ISSUER, subject="odd")
    odd = {"name": ["no", "text"], "email": 7, "roles": ["ok", 1, "", "x" * 65, "\x00", {"a": 1}], "disabled": True}
    user = await users.remember(identity, odd)
    assert (user.name, user.email, user.roles, user.disabled) == ("odd", None, ("ok",), False)
    user = await users.remember(identity, {"name": "A\u202eB\x00C" + "x" * 999, "roles": "admin"})
    assert user.name == "ABC" + "x" * 252
    assert user.roles == ()


@pytest.mark.anyio
async def test_a_login_does_not_enable_a_disabled_user(running: Running) -> None:
    users: Users = running.services.users
    identity = Identity(issuer=ISSUER, subject="gone")
    user = await users.remember(identity, {"name": "Gone"})
    assert await users.set_disabled(user.key, disabled=True)
    assert (await users.remember(identity, {"name": "Gone"})).disabled
    assert not await users.is_active(identity)
    assert not await users.set_disabled("nobody", disabled=True)


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["%", "_", "'; DROP TABLE users; --", "A\x00%", "é" * 50])
async def test_a_search_takes_its_words_literally(running: Running, query: str) -> None:
    await running.services.users.remember(Identity(issuer=ISSUER, subject="alice"), {"name": "Alice"})
    assert await running.services.users.search(query) == []
    assert len(await running.services.users.search("LIC")) == 1


def test_entries_of_before_were_done_by_the_user_once(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite+aiosqlite:///{file}"}

    def alembic(*arguments: str) -> None:
        command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stderr

    alembic("upgrade", "0002")
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO audit_trail (at, event, user_key) VALUES (7, 'login.succeeded', 'alice')")
    alembic("upgrade", "0003")
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT at, event, user_key, actor, count FROM audit_trail").one()
        assert tuple(row) == (7, "login.succeeded", "alice", None, 1)
    alembic("downgrade", "0002")
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT at, event, user_key FROM audit_trail").one()
        assert tuple(row) == (7, "login.succeeded", "alice")
    engine.dispose()
