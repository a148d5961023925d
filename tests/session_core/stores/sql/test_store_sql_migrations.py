"""The SQL store's tables in another Alembic project: generated, migrated, used, and without differences afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from session_core.errors import ConfigurationError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sql.store import SqlStore

pytestmark = pytest.mark.anyio
FOREVER = 2**52

TARGETS = {
    "beside": "target_metadata = [own, session_core.stores.sql.schema.metadata]",
    "within": "session_core.stores.sql.schema.session_tables(own)\ntarget_metadata = own",
}
# The output of `alembic init -t async` without comments, and one table of the project.
ENVIRONMENT = """
import asyncio
from alembic import context
import session_core.stores.sql.schema
from sqlalchemy import Column, Integer, MetaData, String, Table, pool
from sqlalchemy.ext.asyncio import async_engine_from_config

own = MetaData()
Table("articles", own, Column("id", Integer, primary_key=True), Column("title", String(80), nullable=False))
{target}

def run(connection):
    context.configure(connection=connection, target_metadata=target_metadata)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = async_engine_from_config(context.config.get_section("alembic", {{}}), prefix="sqlalchemy.", poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()

asyncio.run(main())
"""
SCRIPT = '''"""${message}"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
'''


class Project:
    """A project that uses only the library."""

    def __init__(self, directory: Path, url: str, way: str) -> None:
        self.directory = directory
        self.url = url
        self.versions = directory / "migrations" / "versions"
        self.versions.mkdir(parents=True)
        (directory / "alembic.ini").write_text(
            f"[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\nsqlalchemy.url = {url}\n"
        )
        (directory / "migrations" / "env.py").write_text(ENVIRONMENT.format(target=TARGETS[way]))
        (directory / "migrations" / "script.py.mako").write_text(SCRIPT)

    async def revise(self, name: str) -> None:
        await self._run(command.revision, autogenerate=True, message=name, rev_id=name)

    async def upgrade(self) -> None:
        await self._run(command.upgrade, "head")

    async def check(self) -> None:
        """Raises when a migration would be generated."""
        await self._run(command.check)

    async def downgrade(self) -> None:
        await self._run(command.downgrade, "base")

    async def _run(self, work: Callable[..., object], *arguments: object, **options: object) -> None:
        # In a thread, because the project's environment runs its own event loop.
        config = Config(self.directory / "alembic.ini", stdout=StringIO())
        await asyncio.to_thread(work, config, *arguments, **options)


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"postgres": "database", "mariadb": "mariadb_url"}[request.param]))


@pytest.fixture(autouse=True)
async def _clean(url: str) -> None:
    await execute(url, "DROP TABLE IF EXISTS articles", "DROP TABLE IF EXISTS alembic_version")


async def execute(url: str, *statements: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


@pytest.mark.parametrize("way", TARGETS)
async def test_a_project_generates_migrates_and_uses_the_tables(url: str, way: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", url, way)
    await project.revise("one")
    await project.upgrade()
    await project.check()
    store = SqlStore(url, create_tables=False)
    await store.open()
    large = bytes(range(256)) * 400
    for key in ("key", "KEY"):  # one session each
        await store.create(key, Entry(large, FOREVER, "user", "op"))
    assert await store.rotate("key", "new", Entry(large, FOREVER, "user"), version=1, successor_until=FOREVER, limit=2) == ()
    assert await store.claim("name", FOREVER)
    assert {stored.key for stored in await store.find(SessionIndex(user="user"))} == {"new", "KEY"}
    await store.close()
    await project.check()
    await _with_the_stores_own_tables_nothing_differs(project)
    await project.downgrade()


async def _with_the_stores_own_tables_nothing_differs(project: Project) -> None:
    """Tables created by the store equal those created by migrations."""
    await execute(project.url, "DROP TABLE sessions", "DROP TABLE session_claims")
    store = SqlStore(project.url)
    await store.open()
    await store.close()
    await project.check()


async def test_tables_of_an_earlier_version_are_refused_until_migrated(url: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", url, "beside")
    await project.revise("one")
    generated = next(project.versions.glob("*.py"))
    earlier = [line for line in generated.read_text().splitlines() if "'token'" not in line]
    generated.write_text("\n".join(earlier))
    await project.upgrade()
    store = SqlStore(url, create_tables=False)
    with pytest.raises(ConfigurationError, match=r"session_claims .* another version; migrate"):
        await store.open()
    await project.revise("two")
    await project.upgrade()
    await store.open()
    assert await store.claim("name", FOREVER)
    await store.close()


async def test_a_store_that_creates_its_tables_adds_missing_columns(url: str) -> None:
    store = SqlStore(url)
    await store.open()
    await store.create("k", Entry(b"kept", FOREVER))
    await store.close()
    await execute(url, "ALTER TABLE session_claims DROP COLUMN token")
    await store.open()
    assert await store.claim("name", FOREVER)
    assert await store.load("k") is not None
    await store.close()
