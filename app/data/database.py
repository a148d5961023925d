"""The connection to the database of users and audit trail, and whether its tables are the ones this code expects."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ("SCHEMA_REVISION", "Database", "DatabaseUnavailableError", "make_engine", "migrate", "why_unavailable")

SCHEMA_REVISION: Final = "0003"
"""The newest migration; a test holds it to the migrations directory."""
_TIMEOUT: Final = 5.0
_CLOSE_SECONDS: Final = 0.5
_MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"


class DatabaseUnavailableError(Exception):
    """The database did not answer, or its tables are not migrated; the message may be shown to an operator."""


class Database:
    """One pool of connections."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        """Make the pool; connects when first used."""
        self._engine = make_engine(self.url)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        engine, self._engine = self._engine, None
        if engine is not None:
            with suppress(TimeoutError):  # a server that is frozen does not say goodbye
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await engine.dispose()

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a transaction: committed at its end, undone by an error."""
        return self._opened().begin()

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection for reading."""
        return self._opened().connect()

    async def revision(self) -> str | None:
        """Return the migration that the tables are at; None for an empty database."""
        try:
            async with asyncio.timeout(_TIMEOUT), self.connect() as connection:
                found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
                return found
        except (SQLAlchemyError, OSError, TimeoutError):
            return None

    async def ping(self) -> None:
        """Return when the database answers and is migrated; raise `DatabaseUnavailableError` when not."""
        try:
            async with asyncio.timeout(_TIMEOUT), self.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            message = "the database does not answer"
            raise DatabaseUnavailableError(message) from error
        if await self.revision() != SCHEMA_REVISION:
            message = "the database is not migrated; run: uv run alembic upgrade head"
            raise DatabaseUnavailableError(message)

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            message = "the database is not open"
            raise DatabaseUnavailableError(message)
        return self._engine


def make_engine(url: str) -> AsyncEngine:
    """Return an engine whose errors never quote values."""
    engine = create_async_engine(url, hide_parameters=True, pool_pre_ping=not url.startswith("sqlite"))
    if url.startswith("sqlite"):
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def migrate(url: str) -> None:
    """Bring the database to `SCHEMA_REVISION`. Safe in several processes at once; runs its own event loop.

    Raises `DatabaseUnavailableError` when it does not answer, or refuses.
    """
    # Imported here: a server whose database is up to date starts without alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = url
    try:
        if url.startswith("sqlite"):
            _make_private_file(make_url(url).database or "")
        command.upgrade(config, "head")
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseUnavailableError(why_unavailable(error)) from error


def why_unavailable(error: Exception) -> str:
    """Return one line for an operator: the class and the code of the driver's error. No text of it, which may quote values."""
    cause: Any = getattr(error, "orig", None) or error
    while cause.__cause__ is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or getattr(cause, "strerror", None)
    return f"the database does not answer, or refuses: {type(cause).__name__}{f' ({code})' if code else ''}"


def _make_private_file(path: str) -> None:
    """Create the file readable by its owner alone; SQLite itself follows the umask."""
    if path and path != ":memory:":
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # Not opened where it exists: closing it would drop the locks that SQLite holds for this process (POSIX).
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ANN401 - the driver's connection
    del record
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(_TIMEOUT * 1000)}")
    cursor.close()
