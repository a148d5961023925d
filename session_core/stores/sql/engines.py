"""Pools of connections to a database, each connection prepared so that neither side waits for ever; knows no session."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from session_core.errors import ConfigurationError
from session_core.stores.sql.errors import is_lost, is_read_only
from session_core.stores.sql.wal import WAL_BOUND_PAGES, Checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import URL
    from sqlalchemy.engine import Connection, ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("Engines", "make_private_file")

_SINGLE: Final = "session_core_single_statement"
_MILLISECOND: Final = 1000
# No default everywhere, and needed: a snapshot taken before a lock was granted would not show what the lock's last owner wrote.
# It also spares MySQL the locks on gaps between keys.
_IN_TRANSACTIONS: Final = "READ COMMITTED"
_LEAST_MARIADB: Final = (10, 6)
_LEAST_MYSQL: Final = (8, 0, 1)


class Engines:
    """Three ways to one database: for reads, for writes of one statement, and for transactions."""

    def __init__(self, url: URL, *, pool_size: int, timeout: float) -> None:
        self._url = url
        self._pool_size = pool_size
        self._timeout = timeout
        self.all: Sequence[AsyncEngine] = ()
        self.checkpoints: Checkpoints | None = None
        """Of SQLite, which leaves them to its clients."""
        {"sqlite": self._make_sqlite, "postgresql": self._make_postgresql, "mysql": self._make_mysql}[url.get_backend_name()]()

    def _make_sqlite(self) -> None:
        """SQLite has one writer at a time: queueing for one connection here is fairer and cheaper than its own polling."""
        reads = self._make(pool_size=self._pool_size, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True)
        writes = self._make(pool_size=1)
        event.listen(reads.sync_engine, "connect", _prepare_sqlite(busy_ms=int(self._timeout * _MILLISECOND)))
        # Short: SQLite polls for the write lock more and more slowly, and a busy neighbour would starve this process.
        # Beginning anew (`SqlDatabase`) is fairer, and leaves the waiting to the event loop.
        event.listen(writes.sync_engine, "connect", _prepare_sqlite(busy_ms=20))
        event.listen(writes.sync_engine, "begin", _begin_sqlite)
        self.all = (reads, writes)
        self.reads, self.transactions = reads, writes
        self.singles = writes.execution_options(**{_SINGLE: True})
        self.checkpoints = Checkpoints(reads)
        event.listen(writes.sync_engine, "after_cursor_execute", _count_rows(self.checkpoints))

    def _make_postgresql(self) -> None:
        # What a connection commits when is the driver's own affair here: one pool does for all three.
        engine = self._make_prepared(_prepare_postgresql(self._timeout), self._pool_size, _IN_TRANSACTIONS)
        self.all = (engine,)
        self.transactions = engine
        self.reads = self.singles = engine.execution_options(isolation_level="AUTOCOMMIT")

    def _make_mysql(self) -> None:
        # Here the server has to be told each time, and a connection that is lost in telling would be lost to the pool.
        prepare = _prepare_mysql(self._timeout)
        singles = self._make_prepared(prepare, self._pool_size - self._pool_size // 2, "AUTOCOMMIT")
        transactions = self._make_prepared(prepare, max(self._pool_size // 2, 1), _IN_TRANSACTIONS)
        event.listen(singles.sync_engine, "connect", _refuse_old_server(singles))
        event.listen(transactions.sync_engine, "connect", _refuse_old_server(transactions))
        self.all = (singles, transactions)
        self.transactions = transactions
        self.reads = self.singles = singles

    def _make_prepared(self, prepare: Callable[[Any, object], None], pool_size: int, isolation_level: str) -> AsyncEngine:
        engine = self._make(
            pool_size=pool_size,
            isolation_level=isolation_level,
            skip_autocommit_rollback=True,
            connect_args=self._connect_args(),
        )
        event.listen(engine.sync_engine, "connect", prepare)
        event.listen(engine.sync_engine, "handle_error", _give_up_connections)
        return engine

    def _make(self, **options: Any) -> AsyncEngine:  # noqa: ANN401 - as SQLAlchemy's own
        return create_async_engine(self._url, max_overflow=0, pool_timeout=self._timeout, hide_parameters=True, **options)

    def _connect_args(self) -> dict[str, object]:
        if self._url.get_backend_name() != "postgresql":
            return {"connect_timeout": self._timeout}
        if "target_session_attrs" in self._url.query:
            return {"timeout": self._timeout}
        # What was the primary may be a standby when it is back: it would answer reads, and not know the newest logouts.
        return {"timeout": self._timeout, "target_session_attrs": "primary"}


def make_private_file(path: str) -> None:
    """Create the database file readable by its owner only (SQLite itself follows the umask); its log files inherit that."""
    if path.startswith("file:"):
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


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
        cursor.execute(f"PRAGMA wal_autocheckpoint = {WAL_BOUND_PAGES}")
        cursor.close()

    return prepare


def _count_rows(checkpoints: Checkpoints) -> Callable[..., None]:
    def executed(connection: Connection, cursor: Any, *rest: object) -> None:  # noqa: ANN401 - the driver's own
        del connection, rest
        checkpoints.note(max(cursor.rowcount, 0))

    return executed


def _begin_sqlite(connection: Connection) -> None:
    # A single statement takes the write lock by itself, before it reads.
    if not connection.get_execution_options().get(_SINGLE):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_postgresql(timeout: float) -> Callable[[Any, object], None]:
    """A client that froze or was cut off must not keep its locks: the server ends what waits or rests too long."""
    return _run_at_connect(
        f"SET lock_timeout = {ceil(timeout * _MILLISECOND)}",
        f"SET idle_in_transaction_session_timeout = {ceil(2 * timeout * _MILLISECOND)}",
    )


def _prepare_mysql(timeout: float) -> Callable[[Any, object], None]:
    """Likewise. The defaults are 50 seconds for a row, and a day for a table that is being changed."""
    seconds = max(ceil(timeout), 1)
    return _run_at_connect(
        f"SET SESSION innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}",
        # A comment for MySQL, which has no such limit.
        f"/*M! SET SESSION idle_transaction_timeout = {2 * seconds} */",
    )


def _run_at_connect(*statements: str) -> Callable[[Any, object], None]:
    def prepare(connection: Any, record: object) -> None:  # noqa: ANN401 - the driver's own
        del record
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()  # PostgreSQL would undo a SET with the transaction it is in

    return prepare


def _refuse_old_server(engine: AsyncEngine) -> Callable[[Any, object], None]:
    """Sweepers need SKIP LOCKED. Better said at the start than by a syntax error in an hour."""

    def check(connection: Any, record: object) -> None:  # noqa: ANN401 - the driver's own
        del connection, record
        dialect: Any = engine.dialect
        least = _LEAST_MARIADB if getattr(dialect, "is_mariadb", False) else _LEAST_MYSQL
        if dialect.server_version_info < least:
            needed = ".".join(map(str, least))
            msg = f"the SQL session store needs {'MariaDB' if dialect.is_mariadb else 'MySQL'} {needed} or later"
            raise ConfigurationError(msg)

    return check


def _give_up_connections(context: ExceptionContext) -> None:
    """Let the whole pool go when one connection tells that the server is going, or that it is a primary no more."""
    error = context.original_exception
    if is_lost(error) or is_read_only(error):
        context.is_disconnect = True
