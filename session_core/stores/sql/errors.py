"""What an error of a database driver means for the call it came from; opens no connection."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

__all__ = ("failures_of", "is_lost", "is_read_only", "is_undone", "kind_of", "lacks_tables")

# The database did nothing, or undid everything, and says so: these, and only these, are safe to run again at once. PostgreSQL's
# serialization failure and deadlock; MariaDB's and MySQL's deadlock (also a write set that lost on a Galera cluster) and record
# that changed under a snapshot; SQLite's write lock being held by another process.
_UNDONE: Final = frozenset({"40001", "40P01", 1213, 1020, "SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT"})
# A transaction, a server or a session that may only read: it was the primary once, or it is about to stop being it.
_READ_ONLY: Final = frozenset({"25006", 1290, 1792, 1836})
# The server is on its way down or up, has ended this session, or cannot be reached: whatever else may be said of the connection.
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", 1053, 1927, 2006, 2013, 2055, 4031})
_CONNECTION_EXCEPTION: Final = re.compile("08[0-9A-Z]{3}")
_NO_TABLE: Final = frozenset({"42P01", "42703", 1146, 1054})


def is_undone(error: BaseException) -> bool:
    """Whether nothing of the transaction was done, and it may simply run again."""
    return not _signs(error).isdisjoint(_UNDONE)


def is_read_only(error: BaseException) -> bool:
    """Whether the server that was reached takes no writes."""
    return not _signs(error).isdisjoint(_READ_ONLY)


def is_lost(error: BaseException) -> bool:
    """Whether the connection is of no more use; what was sent on it last may have been done."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, OSError | EOFError) and not isinstance(error, TimeoutError):
        return True  # drivers let these through when the socket breaks under them
    signs = _signs(error)
    return not signs.isdisjoint(_LOST) or any(isinstance(sign, str) and _CONNECTION_EXCEPTION.fullmatch(sign) for sign in signs)


def lacks_tables(error: BaseException) -> bool:
    """Whether a table or one of its columns is missing."""
    cause = _cause(error)
    return (
        not _signs(error).isdisjoint(_NO_TABLE)
        or str(cause).startswith(("no such table", "no such column"))
        or ("has no column named" in str(cause))
    )


def kind_of(error: BaseException) -> str:
    """Name the kind of an error without its message, which quotes values."""
    cause = _cause(error)
    number = cause.args[0] if isinstance(error, DBAPIError) and cause.args else None
    if isinstance(number, int) and number:
        return str(number)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or type(cause).__name__)


def failures_of(dbapi: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - a module
    """Everything that a driver may raise for a database that does not do what it is asked."""
    # asyncpg's own while it connects; broken sockets that drivers do not wrap.
    raw = getattr(dbapi, "exceptions_module", None)
    found = [getattr(raw, name, None) for name in ("PostgresError", "InterfaceError", "InternalClientError")]
    drivers = [kind for kind in (*found, getattr(dbapi, "Error", None)) if isinstance(kind, type)]
    return (SQLAlchemyError, OSError, EOFError, *drivers)


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _signs(error: BaseException) -> set[str | int]:
    cause = _cause(error)
    signs = (getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorname", None), *cause.args[:1])
    return {sign for sign in signs if isinstance(sign, str | int)}
