"""Migrations and users: every way to create the tables gives the tables that the code expects."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, text
from sqlalchemy.exc import IntegrityError

from app.data.database import Database, DatabaseUnavailableError, migrate, newest_revision
from app.data.tables import metadata
from app.data.users import Users
from session_core import Identity, open_store
from session_core.stores.sql.schema import metadata as session_metadata
from session_core.testing import FakeClock
from tests.app.conftest import ISSUER, Running
from tests.support.postgres_server import postgres_server

ROOT = Path(__file__).resolve().parents[2]


def test_the_newest_revision_is_found_without_alembic() -> None:
    config = Config(ROOT / "alembic.ini")
    assert ScriptDirectory.from_config(config).get_current_head() == newest_revision()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("ALTER TABLE users ADD COLUMN city VARCHAR(80)", None),
        ("ALTER TABLE users ADD COLUMN points INTEGER NOT NULL DEFAULT 0", None),
        ("CREATE TABLE of_a_newer_version (id INTEGER PRIMARY KEY)", None),
        ("ALTER TABLE users RENAME COLUMN email TO mail", "column users.email is missing"),
        ("ALTER TABLE audit_trail RENAME TO trail", "table audit_trail is missing"),
    ],
)
async def test_a_newer_database_with_added_columns_only_is_ready(database: Path, statement: str, problem: str | None) -> None:
    # A rolling deployment: the new version has migrated, the old one still runs and does not know that revision.
    opened = Database(f"sqlite+aiosqlite:///{database}")
    await opened.open()
    await opened.ping()
    async with opened.begin() as connection:
        await connection.exec_driver_sql(statement)
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of a newer version'")
    try:
        if problem is None:
            await opened.ping()
        else:
            with pytest.raises(DatabaseUnavailableError, match=problem):
                await opened.ping()
    finally:
        await opened.close()


def test_a_generated_revision_passes_the_linters_and_the_application_is_ready(tmp_path: Path) -> None:
    for name in ("app", "migrations", "session_core"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    tables = tmp_path / "app" / "data" / "tables.py"
    own = """
added_by_a_test: Final = Table(
    "added_by_a_test",
    metadata,
    Column("id", _counter, primary_key=True, autoincrement=True),
    Column("user_key", String(64), nullable=False),
    Column("what", String(80), nullable=False, server_default=""),
    Index(None, "user_key"),
)
\"\"\"One row per order.\"\"\"
"""
    tables.write_text(tables.read_text() + own)
    url = f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "DATABASE_URL": url}

    def done(*command: str) -> str:
        result = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    ready = "import asyncio; from app.data.database import Database; d = Database({url!r})\n"
    ready += "async def main():\n    await d.open(); await d.ping(); await d.close(); print('ready')\nasyncio.run(main())"
    done("-m", "alembic", "upgrade", "head")
    done("-m", "alembic", "revision", "--autogenerate", "-m", "a table of a test")
    done("-m", "alembic", "upgrade", "head")
    done("-m", "alembic", "check")
    done("-m", "ruff", "check", "migrations", "app")
    done("-m", "ruff", "format", "--check", "migrations", "app")
    assert done("-c", ready.format(url=url)) == "ready\n"
    done("-m", "alembic", "downgrade", "-1")


def test_the_documented_command_installs_what_runs_after_a_revision() -> None:
    hooks = set(re.findall(r"(?m)^\w+\.module = (\w+)$", (ROOT / "alembic.ini").read_text()))
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert hooks <= {re.split(r"[\[><=]", each)[0] for each in groups["dev"] if isinstance(each, str)}
    pages = [ROOT / "docs" / "how-to" / "make-it-yours.md", ROOT / "README.md", *(ROOT / "scripts").glob("owner/README.md")]
    commands = [command for page in pages for command in re.findall(r"uv run .*alembic revision", page.read_text())]
    assert set(commands) == {"uv run --group dev alembic revision"}


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


def test_concurrent_migrations_run_once(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    code = f"from app.data.database import migrate; migrate({url!r})"
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False), range(3)))
    assert [result.returncode for result in results] == [0, 0, 0]


@pytest.mark.anyio
async def test_migrations_work_after_the_store_has_created_its_tables(tmp_path: Path, clock: FakeClock) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    store = open_store(url, clock=clock)
    await store.open()
    await asyncio.to_thread(migrate, url)
    assert await store.load("unknown") is None
    await store.close()


def test_alembic_upgrades_and_downgrades_the_configured_database(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'b.db'}"}
    for arguments in (["upgrade", "head"], ["check"], ["downgrade", "base"], ["upgrade", "head"]):
        command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "b.db").exists()


def test_an_older_version_leaves_a_newer_database_as_it_is(tmp_path: Path) -> None:
    """After a rollback, also where the migration is a step before each start."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'b.db'}"
    migrate(url)
    with sqlite3.connect(tmp_path / "b.db") as connection:
        connection.execute("ALTER TABLE users ADD COLUMN phone TEXT")
        connection.execute("UPDATE alembic_version SET version_num = 'newer'")
    connection.close()
    migrate(url)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DATABASE_URL": url}
    for command, code, said in (
        (["upgrade", "head"], 0, "the database is at revision newer, which this version does not have: left as it is"),
        (["check"], 255, "Can't locate revision identified by 'newer'"),
    ):
        alembic = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *command]
        ran = subprocess.run(alembic, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert (ran.returncode, said in ran.stderr + ran.stdout) == (code, True), ran.stderr


@pytest.mark.anyio
async def test_a_database_without_tables_is_not_ready_and_the_error_gives_the_command(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    await database.open()
    with pytest.raises(DatabaseUnavailableError, match="alembic upgrade head"):
        await database.ping()
    await database.close()


@pytest.mark.anyio
async def test_a_killed_or_frozen_server_is_an_outage_until_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as server:
        database = Database(server.url_through(server.port))
        await database.open()

        async def ask() -> int:
            async with database.connect() as connection:
                return int(await connection.scalar(text("SELECT 1")) or 0)

        assert await ask() == 1
        server.kill()
        for _ in range(2):  # once with the old connection, once with a new one
            with pytest.raises(DatabaseUnavailableError):
                await ask()
        with pytest.raises(DatabaseUnavailableError):
            await ask()
        server.start()
        assert await ask() == 1
        with monkeypatch.context() as patched:
            patched.setattr("app.data.database._TIMEOUT", 0.3)
            server.freeze()
            with pytest.raises(DatabaseUnavailableError):
                await ask()
            server.thaw()
        assert await ask() == 1
        await database.close()


def test_a_column_of_a_clone_that_no_struct_has_changes_nothing(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        for name in ("users", "audit_trail"):
            connection.execute(f"ALTER TABLE {name} ADD COLUMN city TEXT DEFAULT 'Bern'")
    connection.close()
    code = f"""
import asyncio
from sqlalchemy import Column, Text
from app.data import tables
for table in (tables.users, tables.audit):
    table.append_column(Column("city", Text))
from app.data.audit import AuditTrail
from app.data.audit_search import AuditFilter, AuditSearch
from app.data.database import Database
from app.data.users import Users
from session_core import Identity, SystemClock

async def main():
    clock, database = SystemClock(), Database("sqlite+aiosqlite:///{database}")
    await database.open()
    users, trail = Users(database, clock), AuditTrail(database, clock, days=1)
    user = await users.remember(Identity(issuer="https://op.example", subject="alice"), {{"roles": ["admin"]}})
    await trail.open()
    trail.add("user.enabled", user_key=user.key)
    await trail.close()
    page = await AuditSearch(database).page(AuditFilter(), limit=5)
    print(await users.search() == [user], [e.event for e in await trail.latest()], [e.event for e in page.entries])
    await database.close()

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert ran.stdout.splitlines()[-1:] == ["True ['user.enabled'] ['user.enabled']"], ran.stderr  # the log is above


@pytest.mark.anyio
async def test_a_refused_value_is_no_outage(database: Path) -> None:
    opened = Database(f"sqlite+aiosqlite:///{database}")
    await opened.open()
    with pytest.raises(IntegrityError):
        async with opened.begin() as connection:
            await connection.execute(text("INSERT INTO users (user_key) VALUES ('k')"))  # the other columns are missing
    with pytest.raises(DatabaseUnavailableError):
        async with opened.begin() as connection:
            await connection.execute(text("INSERT INTO not_migrated (id) VALUES (1)"))
    await opened.close()


@pytest.mark.anyio
async def test_the_reason_of_an_outage_is_named_without_values() -> None:
    async def reason(url: str) -> str:
        database = Database(url)
        await database.open()
        with pytest.raises(DatabaseUnavailableError) as caught:
            await database.ping()
        await database.close()
        return str(caught.value)

    with postgres_server() as server:
        # As libpq's, like those of a session store.
        url = server.url_through(server.port).replace("?ssl=disable", "?sslmode=disable&application_name=app%20one&pool_size=2")
        assert "table users is missing" in await reason(url)
        await asyncio.to_thread(migrate, url)
        assert (await reason(url.replace("/postgres?", "/hunter2?"))).endswith("InvalidCatalogNameError (3D000)")
        assert (await reason(url.replace("postgres@", "hunter2@"))).endswith("InvalidAuthorizationSpecificationError (28000)")
        assert "ConnectionError" in await reason(url.replace("sslmode=disable", "sslmode=require"))
    assert "ConnectionRefusedError" in await reason(url)


@pytest.mark.anyio
async def test_concurrent_first_logins_create_one_user(running: Running) -> None:
    identity = Identity(issuer=ISSUER, subject="new")
    users = running.services.users
    await asyncio.gather(*(users.remember(identity, {"name": f"Name {number}"}) for number in range(10)))
    assert len(await users.search("name")) == 1


@pytest.mark.anyio
async def test_claims_of_a_wrong_type_are_ignored(running: Running) -> None:
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
    assert not await users.set_disabled("unknown", disabled=True)


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["%", "_", "'; DROP TABLE users; --", "A\x00%", "é" * 50])
async def test_a_search_treats_its_input_literally(running: Running, query: str) -> None:
    await running.services.users.remember(Identity(issuer=ISSUER, subject="alice"), {"name": "Alice"})
    assert await running.services.users.search(query) == []
    assert len(await running.services.users.search("LIC")) == 1


def test_entries_of_older_versions_are_attributed_to_the_user_once(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DATABASE_URL": f"sqlite+aiosqlite:///{file}"}

    def alembic(*arguments: str) -> None:
        command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200)
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
