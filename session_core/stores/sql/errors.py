"""What an error of a database driver means for the call it came from; opens no connection."""

from __future__ import annotations

import errno
import re
from typing import Final

__all__ = ("advice_for", "is_lock_timeout", "is_lost", "is_read_only", "is_undone", "kind_of")

# The database did nothing, or undid everything, and says so: these, and only these, are safe to run again at once. PostgreSQL's
# serialization failure and deadlock; MariaDB's and MySQL's deadlock (also a write set that lost on a Galera cluster), lock that
# was waited for and record that changed under a snapshot.
_LOCK_TIMEOUT: Final = 1205
_UNDONE: Final = frozenset({"40001", "40P01", 1213, _LOCK_TIMEOUT, 1020})
# A transaction, a server or a session that may only read: it was the primary once, or it is about to stop being it.
_READ_ONLY: Final = frozenset({"25006", 1290, 1792, 1836})
# The server is on its way down or up, has ended this session, or cannot be reached: whatever else may be said of the connection.
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", 1053, 1927, 2006, 2013, 2055, 4031})
_CONNECTION_EXCEPTION: Final = re.compile("08[0-9A-Z]{3}")
_NO_TABLE: Final = frozenset({"42P01", "42703", 1146, 1054})
_NO_STATEMENT: Final = frozenset({"26000", "42P05"})
_NO_DATABASE: Final = frozenset({"3D000", 1049})
_NO_LOGIN: Final = frozenset({"28P01", "28000", 1045})


def is_undone(error: BaseException) -> bool:
    """Whether nothing of the transaction was done, and it may simply run again."""
    return not _signs(error).isdisjoint(_UNDONE)


def is_lock_timeout(error: BaseException) -> bool:
    """Whether a lock was waited for as long as MySQL waits, a second at least."""
    return _LOCK_TIMEOUT in _signs(error)


def is_read_only(error: BaseException) -> bool:
    """Whether the server that was reached takes no writes."""
    return not _signs(error).isdisjoint(_READ_ONLY)


def is_lost(error: BaseException) -> bool:
    """Whether the connection is of no more use; what was sent on it last may have been done."""
    if isinstance(error, OSError | EOFError) and not isinstance(error, TimeoutError):
        return True  # drivers let these through when the socket breaks under them
    signs = _signs(error)
    return not signs.isdisjoint(_LOST) or any(isinstance(sign, str) and _CONNECTION_EXCEPTION.fullmatch(sign) for sign in signs)


def lacks_tables(error: BaseException) -> bool:
    """Whether a table or one of its columns is missing."""
    return not _signs(error).isdisjoint(_NO_TABLE)


def advice_for(error: BaseException) -> str:
    """Return what an operator should look at, or nothing."""
    signs = _signs(error)
    for known, advice in (
        (_NO_TABLE, "its tables are missing or of another version: migrate the database"),
        (_NO_STATEMENT, "a pooler between may not keep prepared statements: add prepared_statements=off to the URL"),
        (_NO_DATABASE, "the database in the URL does not exist there"),
        (_NO_LOGIN, "the user or the password in the URL is refused"),
    ):
        if not signs.isdisjoint(known):
            return f"; {advice}"
    return ""


def kind_of(error: BaseException) -> str:
    """Name an error by its class and code, without its message, which quotes values."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    number: int | str | None = cause.args[0] if cause.args and isinstance(cause.args[0], int) else None
    if isinstance(cause, OSError) and isinstance(number, int):
        number = errno.errorcode.get(number, str(number))
    named = (type(cause).__name__, number, getattr(cause, "sqlstate", None))
    return " ".join(str(part) for part in named if part)


def _signs(error: BaseException) -> set[str | int]:
    signs = (getattr(error, "sqlstate", None), *error.args[:1])
    return {sign for sign in signs if isinstance(sign, str | int)}
