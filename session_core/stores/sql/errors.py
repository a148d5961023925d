"""Classifies errors of database drivers."""

from __future__ import annotations

import errno
import re
from typing import Final

__all__ = ("advice_for", "is_lock_timeout", "is_lost", "is_read_only", "is_undone", "kind_of")

# The database did nothing, or rolled back: only after these errors a retry is safe. PostgreSQL's
# serialization failure and deadlock; MariaDB's and MySQL's deadlock (also a write set that lost on a Galera cluster), lock that
# was waited for and record that changed under a snapshot.
_LOCK_TIMEOUT: Final = 1205
_UNDONE: Final = frozenset({"40001", "40P01", 1213, _LOCK_TIMEOUT, 1020})
# A read-only transaction, server or session: a former primary, or one that is being replaced.
_READ_ONLY: Final = frozenset({"25006", 1290, 1792, 1836})
# The server is starting or stopping, has ended this session, or cannot be reached.
_LOST: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", 1053, 1927, 2006, 2013, 2055, 4031})
_CONNECTION_EXCEPTION: Final = re.compile("08[0-9A-Z]{3}")
_NO_TABLE: Final = frozenset({"42P01", "42703", 1146, 1054})
_NO_STATEMENT: Final = frozenset({"26000", "42P05"})
_NO_DATABASE: Final = frozenset({"3D000", 1049})
_NO_LOGIN: Final = frozenset({"28P01", "28000", 1045})


def is_undone(error: BaseException) -> bool:
    """Whether the transaction was rolled back and may run again."""
    return not _signs(error).isdisjoint(_UNDONE)


def is_lock_timeout(error: BaseException) -> bool:
    """Whether MySQL's lock timeout (at least a second) was reached."""
    return _LOCK_TIMEOUT in _signs(error)


def is_read_only(error: BaseException) -> bool:
    """Whether the server is read-only."""
    return not _signs(error).isdisjoint(_READ_ONLY)


def is_lost(error: BaseException) -> bool:
    """Whether the connection is lost; its last statement may have been executed."""
    if isinstance(error, OSError | EOFError) and not isinstance(error, TimeoutError):
        return True  # drivers raise these when the socket breaks
    signs = _signs(error)
    return not signs.isdisjoint(_LOST) or any(isinstance(sign, str) and _CONNECTION_EXCEPTION.fullmatch(sign) for sign in signs)


def advice_for(error: BaseException) -> str:
    """Return a hint for the operator, or empty text."""
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
