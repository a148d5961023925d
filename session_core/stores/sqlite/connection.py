"""Connections to the file of the embedded store, and what their errors mean; independent of sessions."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.sqlite.schema import CHECKS, TABLES

__all__ = ("WAL_BYTES", "is_busy", "make_private_file", "open_connections", "unavailable")

WAL_BYTES: Final = 4 * 1024 * 1024
"""Length of the write-ahead log above which it is copied into the database; SQLite's own default is the same."""
_RETRY_SECONDS: Final = 0.005


def open_connections(path: Path, count: int, *, timeout: float) -> tuple[sqlite3.Connection, ...]:
    """Return connections to the file, which is created with its tables where they are missing, readable by its owner only.

    Waits up to `timeout` seconds for other processes. Raises `OSError`, `sqlite3.Error` and `ConfigurationError`.
    """
    make_private_file(path)
    deadline = time.monotonic() + timeout
    while True:
        with ExitStack() as opened:
            try:
                first = opened.enter_context(closing(_connect(path)))
                _prepare(first)
                connections = (first, *(opened.enter_context(closing(_connect(path))) for _ in range(count - 1)))
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
            else:
                opened.pop_all()
                return connections
        time.sleep(_RETRY_SECONDS)


def make_private_file(path: Path) -> None:
    """Create a database file if it is missing, readable by its owner only; SQLite gives its files beside it the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # An existing file is not opened: closing it would drop the POSIX locks of every connection of this process.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def is_busy(error: sqlite3.Error) -> bool:
    """Whether nothing was done because another connection holds a lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def unavailable(error: Exception) -> StoreUnavailableError:
    """Return the outage that an error means, named by its kind alone: the message of an `OSError` quotes the path.

    The error has been raised by a read, or its transaction has been undone.
    """
    kind = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return StoreUnavailableError(f"the sqlite session store is unavailable ({kind})", not_applied=True, kind=kind)


def _connect(path: Path) -> sqlite3.Connection:
    """Return a connection that never waits for a lock, begins no transaction by itself and may be used by any thread."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    # NORMAL, the usual setting for a write-ahead log, loses acknowledged commits with the power.
    connection.execute("PRAGMA synchronous = FULL")
    # A checkpoint within a commit would delay it, see `Checkpoints`. A log that starts anew is cut to this length.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    # Readers then never wait for a writer. Kept in the file; a file system without shared memory cannot have it.
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            msg = f"the sqlite session store needs a local disk with shared memory for its write-ahead log (journal mode: {mode})"
            raise ConfigurationError(msg)
    try:
        _check_tables(connection)
    except sqlite3.OperationalError as error:
        if not str(error).startswith("no such table"):
            raise
        connection.execute("BEGIN IMMEDIATE")
        for statement in TABLES:
            connection.execute(statement)
        _check_tables(connection)
        connection.execute("COMMIT")


def _check_tables(connection: sqlite3.Connection) -> None:
    for table, statement in CHECKS.items():
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such column"):
                raise
            msg = f"the table {table} of the file is not one of session_core's; give the sessions a separate file"
            raise ConfigurationError(msg) from error
