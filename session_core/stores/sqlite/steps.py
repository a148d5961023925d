"""What each step of the embedded store reads and writes, in plain SQL; independent of event loops, threads and files.

The writing steps run inside a write transaction, after each other: no other connection writes in between. Each refuses before it
changes anything, so a refusal never costs the other steps of its transaction their work.
"""

# ruff: noqa: S608 - put together from constants

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import Entry, StoredSession

__all__ = (
    "CLAIMED_UNTIL",
    "COUNT_OF_USER",
    "LOAD",
    "LOADS_AT_ONCE",
    "PAGE",
    "PAGE_OF_INDEX",
    "ROWS",
    "TRACE",
    "claim",
    "create",
    "delete",
    "delete_some",
    "end_some",
    "ping",
    "remove_expired",
    "replace",
    "rotate",
    "stored",
    "touch",
)

ROWS: Final = 100
"""Of one bounded step: one or two milliseconds, also where each row is on another page."""

_RECORD: Final = "key, version, data, expires_at, user_key, op_session_key, rank"
_LIVE: Final = "successor IS NULL AND expires_at > ?"
_TAKEN: Final = "the session key is taken"

LOADS_AT_ONCE: Final = 64
LOAD: Final = {
    count: f"SELECT {_RECORD} FROM sessions WHERE key IN ({', '.join('?' * count)}) AND {_LIVE}"
    for count in (1, 2, 4, 8, 16, 32, LOADS_AT_ONCE)
}
"""By the number of keys: few statements, which stay prepared. A key may be given more than once."""
TRACE: Final = "SELECT expires_at, successor FROM sessions WHERE key = ? AND expires_at > ?"
CLAIMED_UNTIL: Final = "SELECT expires_at FROM session_claims WHERE name = ? AND expires_at > ?"
# Pages are bounded by the rows they pass, expired ones too: what is not live is left out by the caller.
PAGE: Final = f"SELECT {_RECORD}, successor FROM sessions WHERE key > ? ORDER BY key LIMIT {ROWS}"
PAGE_OF_INDEX: Final = {
    column: f"SELECT {_RECORD}, rowid FROM sessions WHERE {column} = ? AND rowid > ? ORDER BY rowid LIMIT {ROWS}"
    for column in ("user_key", "op_session_key")
}

_VERSION: Final = f"SELECT version FROM sessions WHERE key = ? AND {_LIVE}"
_FOLLOW: Final = "SELECT expires_at, successor FROM sessions WHERE key = ?"
_INSERT: Final = """
INSERT INTO sessions (version, data, expires_at, user_key, op_session_key, rank, key) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET version = excluded.version, data = excluded.data, expires_at = excluded.expires_at,
user_key = excluded.user_key, op_session_key = excluded.op_session_key, rank = excluded.rank, successor = NULL
WHERE sessions.expires_at <= ?"""
# Nearly every write leaves all indexes alone: a third of the work. A column that is set costs a page of its index, also where the
# value stays: thirty writes are 30 pages of the log in place of 56.
_OF_SAME: Final = f"key = ? AND version = ? AND user_key IS ? AND op_session_key IS ? AND rank = ? AND {_LIVE}"
_UPDATE_DATA: Final = f"UPDATE sessions SET version = ?, data = ? WHERE {_OF_SAME} AND expires_at = ?"
_UPDATE_DATA_AND_EXPIRY: Final = f"UPDATE sessions SET version = ?, data = ?, expires_at = ? WHERE {_OF_SAME}"
_UPDATE: Final = """
UPDATE sessions SET version = ?, data = ?, expires_at = ?, user_key = ?, op_session_key = ?, rank = ?
WHERE key = ?"""
_RETIRE: Final = """
UPDATE sessions SET version = version + 1, data = x'', user_key = NULL, op_session_key = NULL, expires_at = ?, successor = ?
WHERE key = ?"""
_TOUCH: Final = f"UPDATE sessions SET expires_at = ? WHERE key = ? AND expires_at < ? AND {_LIVE}"
_DELETE: Final = "DELETE FROM sessions WHERE key = ?"
_DELETE_OF_USER: Final = "DELETE FROM sessions WHERE key = ? AND user_key = ?"
_LIVE_OF_USER: Final = f"SELECT 1 FROM sessions WHERE key = ? AND user_key = ? AND {_LIVE}"
_KEYS_OF_INDEX: Final = {
    column: f"SELECT key, expires_at FROM sessions WHERE {column} = ? AND key <> ? LIMIT {ROWS}"
    for column in ("user_key", "op_session_key")
}
COUNT_OF_USER: Final = "SELECT count(*) FROM sessions WHERE user_key = ?"
_KEYS_OF_USER: Final = f"SELECT key FROM sessions WHERE user_key = ? AND key <> ? AND {_LIVE} ORDER BY rank, key"
_CLAIM: Final = """
INSERT INTO session_claims (name, expires_at) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at WHERE session_claims.expires_at <= ?"""
_EXPIRED: Final = {
    "sessions": "SELECT key FROM sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
    "session_claims": "SELECT name FROM session_claims WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
}
_REMOVE: Final = {"sessions": _DELETE, "session_claims": "DELETE FROM session_claims WHERE name = ?"}


def stored(row: Sequence[Any]) -> StoredSession:
    """Return the session of a row that begins with the columns of `LOAD`."""
    key, version, data, expires_at, user, op_session, rank = row[:7]
    return StoredSession(key, version, Entry(data, expires_at, user, op_session, rank))


def ping(connection: Connection, now: int) -> None:
    """Fail where nothing can be written; change nothing."""
    connection.execute("UPDATE session_claims SET expires_at = ? WHERE name = ''", (now,))


def create(connection: Connection, now: int, key: str, entry: Entry, *, limit: int) -> tuple[str, ...]:
    """See `SessionStore.create`."""
    if connection.execute(_INSERT, (1, *_columns(entry), key, now)).rowcount == 0:
        raise SessionConflictError(_TAKEN)
    return _make_room(connection, now, key, entry.user, limit)


def replace(connection: Connection, now: int, key: str, entry: Entry, *, version: int) -> int:
    """See `SessionStore.replace`."""
    of_same = (key, version, entry.user, entry.op_session, entry.rank, now)
    if (
        connection.execute(_UPDATE_DATA, (version + 1, entry.data, *of_same, entry.expires_at)).rowcount == 0
        and connection.execute(_UPDATE_DATA_AND_EXPIRY, (version + 1, entry.data, entry.expires_at, *of_same)).rowcount == 0
    ):
        _expect(connection, now, key, version)
        connection.execute(_UPDATE, (version + 1, *_columns(entry), key))
    return version + 1


def rotate(
    connection: Connection, now: int, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int
) -> tuple[str, ...]:
    """See `SessionStore.rotate`."""
    _expect(connection, now, old_key, version)
    taken = connection.execute(_FOLLOW, (new_key,)).fetchone()
    if taken is not None and taken[0] > now:
        raise SessionConflictError(_TAKEN)
    connection.execute(_RETIRE, (successor_until, new_key, old_key))
    connection.execute(_INSERT, (1, *_columns(entry), new_key, now))
    return _make_room(connection, now, new_key, entry.user, limit)


def touch(connection: Connection, now: int, key: str, expires_at: int) -> bool:
    """See `SessionStore.touch`."""
    moved = connection.execute(_TOUCH, (expires_at, key, expires_at, now)).rowcount == 1
    return moved or connection.execute(_VERSION, (key, now)).fetchone() is not None


def delete(connection: Connection, now: int, key: str) -> tuple[str, ...]:
    """See `SessionStore.delete`."""
    deleted: list[str] = []
    following: str | None = key
    while following is not None:
        row = connection.execute(_FOLLOW, (following,)).fetchone()
        if row is None:
            break
        expires_at, successor = row
        connection.execute(_DELETE, (following,))
        if successor is None and expires_at > now:
            deleted.append(following)
        following = successor if expires_at > now else None
    return tuple(deleted)


def delete_some(connection: Connection, now: int, column: str, value: str, keep: str) -> tuple[list[str], bool]:
    """Delete up to `ROWS` sessions of an index, except `keep`; return the keys of the live ones, and whether more may be left."""
    rows = connection.execute(_KEYS_OF_INDEX[column], (value, keep)).fetchall()
    connection.executemany(_DELETE, [(key,) for key, _ in rows])
    return [key for key, expires_at in rows if expires_at > now], len(rows) == ROWS


def end_some(connection: Connection, now: int, user: str, keys: Sequence[str]) -> list[str]:
    """Delete those of the keys that are still this user's; return the live ones."""
    ended = [key for key in keys if connection.execute(_LIVE_OF_USER, (key, user, now)).fetchone()]
    connection.executemany(_DELETE_OF_USER, [(key, user) for key in keys])
    return ended


def remove_expired(connection: Connection, now: int, table: str, limit: int) -> int:
    """Delete up to `limit` expired rows; return how many."""
    rows = connection.execute(_EXPIRED[table], (now, min(limit, ROWS))).fetchall()
    connection.executemany(_REMOVE[table], rows)
    return len(rows)


def claim(connection: Connection, now: int, name: str, expires_at: int) -> bool:
    """See `SessionStore.claim`."""
    return connection.execute(_CLAIM, (name, expires_at, now)).rowcount == 1


def _columns(entry: Entry) -> tuple[object, ...]:
    return entry.data, entry.expires_at, entry.user, entry.op_session, entry.rank


def _expect(connection: Connection, now: int, key: str, version: int) -> None:
    row = connection.execute(_VERSION, (key, now)).fetchone()
    if row is None:
        raise SessionGoneError
    if row[0] != version:
        raise SessionConflictError


def _make_room(connection: Connection, now: int, key: str, user: str | None, limit: int) -> tuple[str, ...]:
    """Delete what is above the limit beside `key`; return the keys."""
    if limit <= 0 or user is None or connection.execute(COUNT_OF_USER, (user,)).fetchone()[0] <= limit:
        return ()
    others = [row[0] for row in connection.execute(_KEYS_OF_USER, (user, key, now))]
    evicted = tuple(others[: max(len(others) - limit + 1, 0)])
    connection.executemany(_DELETE, [(key,) for key in evicted])
    return evicted
