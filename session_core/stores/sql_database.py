"""Connections of the SQL store: pools, transactions, retries and what a driver's error means; knows no session."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from session_core.errors import StoreUnavailableError
from session_core.stores.sql_tables import create_tables
from session_core.stores.sql_url import parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence

    from sqlalchemy import Executable
    from sqlalchemy.engine import Connection, Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ("SqlDatabase",)

T = TypeVar("T")

# The database did nothing, or undid everything, and says so: these, and only these, are safe to run again. PostgreSQL's
# serialization failure and deadlock; MySQL's deadlock; SQLite's write lock being held by another process.
_UNDONE: Final = frozenset({"40001", "40P01", 1213, "SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT"})
_SINGLE: Final = "session_core_single_statement"


class SqlDatabase:
    """One database, in three ways of talking to it: reads, single writes and write transactions."""

    def __init__(self, url: str, *, pool_size: int, timeout: float) -> None:
        self.url = parse_url(url)
        self.dialect = self.url.get_backend_name()
        self._pool_size = pool_size
        self._timeout = timeout
        self._under_way: set[asyncio.Task[Any]] = set()
        self._engines: tuple[AsyncEngine, ...] = ()
        self._reads: AsyncEngine | None = None
        self._singles: AsyncEngine | None = None
        self._transactions: AsyncEngine | None = None

    async def open(self, *, with_tables: bool) -> None:
        """Make the pools, and the file and tables where they are missing. A second call starts anew."""
        await self.close()
        if self.dialect == "sqlite":
            self._open_sqlite()
        else:
            self._open_server()
        try:
            async with self._outages():
                if self.dialect == "sqlite":
                    await asyncio.to_thread(_make_private_file, self.url.database or "")
                    await self._use_write_ahead_log()
            if with_tables:
                await self.transact(create_tables)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection, when the calls under way have ended. Idempotent."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        engines, self._engines = self._engines, ()
        self._reads = self._singles = self._transactions = None
        for engine in engines:
            await engine.dispose()

    async def read(self, statement: Executable, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        """Return the rows of one SELECT, without a transaction around it."""
        return await self._to_its_end(self._read(statement, parameters))

    async def write(self, statement: Executable, parameters: Mapping[str, object]) -> int:
        """Run one statement that commits itself; return how many rows it met."""

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(statement, parameters)).rowcount

        return await self._to_its_end(self._repeat(lambda: self._singles, work))

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` in one write transaction; it may run again, when the database undid what it did."""
        return await self._to_its_end(self._repeat(lambda: self._transactions, work))

    async def _to_its_end(self, call: Coroutine[Any, Any, T]) -> T:
        """Let a call end even if who waits for it is cancelled: clients that hang up would cost a connection each."""
        task = asyncio.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else may be there any more to be told

    async def _read(self, statement: Executable, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        async with self._outages():
            engine = self._opened(self._reads)
            try:
                return await _rows(engine, statement, parameters)
            except DBAPIError as error:
                # The server was restarted since this connection was last used. Cheaper than asking before each statement.
                if not error.connection_invalidated:
                    raise
                return await _rows(engine, statement, parameters)

    async def _repeat(self, engine: Callable[[], AsyncEngine | None], work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._outages():
            attempt = 0
            while True:
                try:
                    async with self._opened(engine()).begin() as connection:
                        return await work(connection)
                except DBAPIError as error:
                    if not _was_undone(error):
                        raise
                # At random, or two that met in a deadlock meet there again. `_outages` bounds it all in time.
                attempt = min(attempt + 1, 5)
                await asyncio.sleep(random.uniform(0, 0.001 * 2**attempt))  # noqa: S311 - no secret

    def _opened(self, engine: AsyncEngine | None) -> AsyncEngine:
        if engine is None:
            msg = "the session store is not open"
            raise StoreUnavailableError(msg)
        return engine

    def _open_sqlite(self) -> None:
        """SQLite has one writer at a time: queueing for one connection here is fairer and cheaper than its own polling."""
        reads = self._engine(pool_size=self._pool_size, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True)
        writes = self._engine(pool_size=1)
        event.listen(reads.sync_engine, "connect", _prepare_sqlite(busy_ms=int(self._timeout * 1000)))
        # Short: SQLite polls for the write lock more and more slowly, and a busy neighbour would starve this process.
        # Beginning anew (`_repeat`) is fairer, and leaves the waiting to the event loop.
        event.listen(writes.sync_engine, "connect", _prepare_sqlite(busy_ms=20))
        event.listen(writes.sync_engine, "begin", _begin_sqlite)
        self._engines = (reads, writes)
        self._reads, self._transactions = reads, writes
        self._singles = writes.execution_options(**{_SINGLE: True})

    def _open_server(self) -> None:
        # READ COMMITTED is no default everywhere, and needed: a snapshot taken before a lock was granted would not show
        # what the lock's last owner wrote.
        engine = self._engine(pool_size=self._pool_size, isolation_level="READ COMMITTED", skip_autocommit_rollback=True)
        self._engines = (engine,)
        self._transactions = engine
        self._reads = self._singles = engine.execution_options(isolation_level="AUTOCOMMIT")

    def _engine(self, **options: Any) -> AsyncEngine:  # noqa: ANN401 - as SQLAlchemy's own
        return create_async_engine(self.url, max_overflow=0, pool_timeout=self._timeout, hide_parameters=True, **options)

    async def _use_write_ahead_log(self) -> None:
        """Readers then never wait for the writer. Kept in the file; where a file system cannot, sessions work without."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            try:
                async with self._opened(self._reads).connect() as connection:
                    await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except DBAPIError:
                # SQLite does not wait by itself here when several processes start at once.
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def _outages(self) -> AsyncIterator[None]:
        """Tell any failure of the database as an outage, by its kind alone: messages of drivers quote values."""
        try:
            async with asyncio.timeout(self._timeout * 2):
                yield
        except (SQLAlchemyError, OSError, self._driver_error()) as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            kind = getattr(cause, "sqlite_errorname", None) or type(cause).__name__
            msg = f"the {self.dialect} session store is unavailable ({kind})"
            raise StoreUnavailableError(msg) from error

    def _driver_error(self) -> type[Exception]:
        """What the driver raises when SQLAlchemy does not wrap it (asyncpg while connecting)."""
        if self.dialect == "postgresql" and self._transactions is not None:
            found = getattr(self._transactions.dialect.dbapi, "exceptions_module", None)
            return getattr(found, "PostgresError", SQLAlchemyError)
        return SQLAlchemyError


async def _rows(engine: AsyncEngine, statement: Executable, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
    async with engine.connect() as connection:
        return (await connection.execute(statement, parameters)).all()


def _prepare_sqlite(*, busy_ms: int) -> Callable[[Any, object], None]:
    def prepare(connection: Any, record: object) -> None:  # noqa: ANN401 - the driver's own
        del record
        # Without this the driver begins transactions by itself, late and without the write lock, and two that have read
        # before they write end in "database is locked" or, worse, in a check on stale rows.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {busy_ms}")
        # The usual setting for a write-ahead log may lose acknowledged commits with the power.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    return prepare


def _begin_sqlite(connection: Connection) -> None:
    # A single statement takes the write lock by itself, before it reads.
    if not connection.get_execution_options().get(_SINGLE):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _was_undone(error: DBAPIError) -> bool:
    original = error.orig
    if original is None:
        return False
    signs = (getattr(original, "sqlstate", None), getattr(original, "sqlite_errorname", None), *original.args[:1])
    return any(isinstance(sign, str | int) and sign in _UNDONE for sign in signs)


def _make_private_file(path: str) -> None:
    """Create the database file readable by its owner only (SQLite itself follows the umask); its log files inherit that."""
    if path.startswith("file:"):
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
