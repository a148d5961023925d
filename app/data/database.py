"""The connection to the database of users and audit trail, and the check of its tables."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.data.tables import metadata
from app.settings.database_address import address_of
from session_core.errors import SessionCoreError
from session_core.stores.sql.urls.postgresql import PostgresqlAddress
from session_core.stores.sqlite.connection import make_private_file

__all__ = ("Database", "DatabaseUnavailableError", "make_engine", "migrate", "newest_revision", "why_unavailable")

_TIMEOUT: Final = 5.0
_NOW: Final = {"postgresql": "SELECT extract(epoch FROM clock_timestamp())", "mysql": "SELECT unix_timestamp(now(6))"}
_CLOSE_SECONDS: Final = 0.5
_MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"
_REVISION: Final = re.compile(r"(?m)^(revision|down_revision)(?:: [^=]+)? = [\"']([^\"']+)[\"']")


class DatabaseUnavailableError(SessionCoreError):
    """The database did not answer, or its tables are not migrated; the message may be shown to an operator.

    One of the library's errors, so that a login that it stops is reported as an outage, not as refused by the application.
    """

    code = "database_unavailable"
    status_code = 503
    title = "The database is unavailable"


class Database:
    """One pool of connections."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: AsyncEngine | None = None
        self._fits: str | None = None
        """The revision at which the tables were last found to match."""
        self.misfit: str | None = None
        """What the last `ping` found missing, for operators."""

    async def open(self) -> None:
        """Make the pool; connects when first used."""
        self._engine = make_engine(self.url)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        engine, self._engine = self._engine, None
        if engine is not None:
            with suppress(TimeoutError):  # a frozen server does not complete a close
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await engine.dispose()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction: committed at its end, undone by an error. Raises as `connect` does."""
        async with _answering(), self._opened().begin() as connection:
            yield connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading. Raises `DatabaseUnavailableError` when the database does not answer in time."""
        async with _answering(), self._opened().connect() as connection:
            yield connection

    async def revision(self) -> str | None:
        """Return the migration revision of the tables; None for an empty database."""
        try:
            async with self.connect() as connection:
                found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
                return found
        except DatabaseUnavailableError:
            return None

    async def ping(self) -> None:
        """Return when the database answers and has what this code needs; raise `DatabaseUnavailableError` when not.

        Tables and columns decide, not the revision: later migrations that only add columns are accepted.
        """
        async with self.connect() as connection:
            await connection.execute(text("SELECT 1"))
        revision = await self.revision()
        if revision is not None and revision == self._fits:
            return
        self.misfit = None
        if problems := await self._misfits():
            self.misfit = f"the database does not fit: {', '.join(problems)}; run: uv run alembic upgrade head"
            raise DatabaseUnavailableError(self.misfit)
        self._fits = revision

    async def _misfits(self) -> list[str]:
        async with self.connect() as connection:
            return await connection.run_sync(_misfits)

    async def now(self) -> float | None:
        """Return the database's time in Unix seconds; None if it is this machine's (SQLite) or unavailable."""
        query = _NOW.get(make_url(self.url).get_backend_name())
        if query is None:
            return None
        try:
            async with self.connect() as connection:
                return float(await connection.scalar(text(query)) or 0)
        except DatabaseUnavailableError:
            return None

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            message = "the database is not open"
            raise DatabaseUnavailableError(message)
        return self._engine


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Bound what is done with the database, and turn failures of the engine and of the network into outages."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            yield
    except (IntegrityError, DataError):  # the engine answers, and refuses the values
        raise
    except (OSError, DBAPIError, PoolTimeoutError) as error:  # a driver's own errors of the network are no `DBAPIError`
        raise DatabaseUnavailableError(why_unavailable(error)) from error


def make_engine(url: str) -> AsyncEngine:
    """Return an engine whose errors never quote values."""
    address = address_of(url)
    if address is None:
        engine = create_async_engine(url, hide_parameters=True)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine
    arguments, pool = dict(address.arguments), {} if address.pool_size is None else {"pool_size": address.pool_size}
    if isinstance(address, PostgresqlAddress) and address.named_statements is False:
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    driver = f"{make_url(url).drivername}://"
    return create_async_engine(driver, connect_args=arguments, hide_parameters=True, pool_pre_ping=True, **pool)


def migrate(url: str) -> None:
    """Bring the database to the newest revision. Safe in several processes at once; runs its own event loop.

    Raises `DatabaseUnavailableError` when it does not answer, or refuses.
    """
    # Imported here: a server whose database is up to date starts without alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = url
    try:
        path = make_url(url).database
        if url.startswith("sqlite") and path and path != ":memory:":
            make_private_file(Path(path))
        command.upgrade(config, "head")
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseUnavailableError(why_unavailable(error)) from error


def newest_revision() -> str | None:
    """Return the last migration, read without alembic; None without a single last one."""
    found = [_REVISION.findall(file.read_text(encoding="utf-8")) for file in (_MIGRATIONS / "versions").glob("*.py")]
    pairs = [pair for file in found for pair in file]
    last = {name for kind, name in pairs if kind == "revision"} - {name for kind, name in pairs if kind == "down_revision"}
    return last.pop() if len(last) == 1 else None


def why_unavailable(error: Exception) -> str:
    """Return one line for an operator: the class and the code of the driver's error. No text of it, which may quote values."""
    if isinstance(error, DatabaseUnavailableError):
        return str(error)
    cause: Any = getattr(error, "orig", None) or error
    while cause.__cause__ is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or getattr(cause, "strerror", None)
    return f"the database does not answer, or refuses: {type(cause).__name__}{f' ({code})' if code else ''}"


def _misfits(connection: Connection) -> list[str]:
    """Return missing tables and columns, and required columns that this code does not fill; one entry each."""
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    problems: list[str] = []
    for table in metadata.sorted_tables:
        if table.name not in present:
            problems.append(f"table {table.name} is missing")
            continue
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        problems += [f"column {table.name}.{column.name} is missing" for column in table.columns if column.name not in columns]
        problems += [
            f"column {table.name}.{name} needs a default or must be nullable"
            for name, column in columns.items()
            if name not in table.columns and not column["nullable"] and column.get("default") is None
        ]
    return problems


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ANN401 - the driver's connection
    del record
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(_TIMEOUT * 1000)}")
    cursor.close()
