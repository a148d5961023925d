"""The writing steps of the SQL store, each run within one transaction or as one statement, and decided when it runs again.

`Earlier` tells that the answer to a first run was lost. Such a step looks whether what is stored is what it was to write, by the
caller's own random bytes in it, and never guesses: where it cannot be told any more, that is an outage. What it must not do is
be applied twice, or take its own first run for somebody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.stores.base import Entry, StoredSession
from session_core.stores.sql import expiry as expired
from session_core.stores.sql import statements
from session_core.stores.sql.announcements import announce
from session_core.stores.sql.schema import claims, sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from session_core.stores.sql.database import Earlier

__all__ = ("begin", "claim", "end", "end_index", "make_room", "move", "overwrite", "remove_expired", "stored")

_BATCH: Final = 500
"""Keys per statement: databases bound the number of parameters."""
_TAKEN: Final = "the session key is taken"


async def begin(connection: AsyncConnection, earlier: Earlier[Any], key: str, entry: Entry, now: int) -> bool:
    """Insert a new session; return False when a first run had done so. Raises `SessionConflictError`."""
    values = {"key": key, "version": 1, "successor": None, **_columns(entry), "now": now}
    if await statements.insert(connection, sessions, values):
        return True
    if earlier.uncertain:
        row = (await connection.execute(statements.LOAD, {"at": key, "now": now})).one_or_none()
        if row is not None and _is(stored(row), entry, 1):
            return False
    raise SessionConflictError(_TAKEN)


async def overwrite(connection: AsyncConnection, earlier: Earlier[int], key: str, entry: Entry, version: int, now: int) -> int:
    """Overwrite a session of `version`; return the new version."""
    at = {"at": key, "now": now}
    values = {**at, "expected": version, "version": version + 1, **_columns(entry)}
    if (await connection.execute(statements.UPDATE_VERSION, values)).rowcount == 1:
        return version + 1
    if not earlier.uncertain:
        raise _refusal(live=(await connection.execute(statements.VERSION, at)).first() is not None)
    row = (await connection.execute(statements.LOAD, at)).one_or_none()
    if row is not None and _is(stored(row), entry, version + 1):
        return version + 1
    if row is not None and row.version > version + 1:
        # Others wrote upon it, and it may have been mine that they wrote upon: a conflict would be answered by doing it again.
        msg = "the session store cannot tell whether the write was made"
        raise StoreUnavailableError(msg)
    raise _refusal(live=row is not None)


async def move(
    connection: AsyncConnection,
    earlier: Earlier[Any],
    old_key: str,
    new_key: str,
    entry: Entry,
    *,
    version: int,
    successor_until: int,
    now: int,
) -> bool:
    """Rotate a session; return False when a first run had done so."""
    at = {"at": old_key, "now": now}
    retired = {"data": b"", "expires_at": successor_until, "user_key": None, "op_session_key": None}
    values = {**at, "expected": version, "version": version + 1, "successor": new_key, **retired}
    if (await connection.execute(statements.UPDATE_VERSION, values)).rowcount != 1:
        if earlier.uncertain:
            # Nobody else knows the new key.
            row = (await connection.execute(statements.HOLD, {"at": old_key})).one_or_none()
            if row is not None and row.successor == new_key:
                return False
        raise _refusal(live=(await connection.execute(statements.VERSION, at)).first() is not None)
    if old_key == new_key:
        raise SessionConflictError(_TAKEN)
    values = {"key": new_key, "version": 1, "successor": None, **_columns(entry), "now": now}
    if not await statements.insert(connection, sessions, values):
        raise SessionConflictError(_TAKEN)
    await announce(connection, [old_key])
    return True


async def end(connection: AsyncConnection, earlier: Earlier[tuple[str, ...]], key: str, now: int) -> tuple[str, ...]:
    """Delete a session and what it was rotated to; return the keys of those that were live."""
    seen: list[str] = []
    deleted: list[str] = []
    following: str | None = key
    while following is not None and following not in seen:
        # One after another: each look waits for a rotation of that very key in flight, then sees what it became.
        row = (await connection.execute(statements.HOLD, {"at": following})).one_or_none()
        if row is None:
            break
        seen.append(following)
        if row.successor is None and row.expires_at > now:
            deleted.append(following)
        following = row.successor if row.expires_at > now else None
    await _delete(connection, seen)
    return _together(earlier, deleted)


async def end_index(
    connection: AsyncConnection, earlier: Earlier[tuple[str, ...]], name: str, value: str, *, keep: str, now: int
) -> tuple[str, ...]:
    """Delete the live sessions of an index, except `keep`; return their keys."""
    await statements.lock(connection, [value], now)
    keys = await statements.hold_index(connection, name, value, keep=keep, now=now)
    await _delete(connection, keys)
    return _together(earlier, keys)


async def make_room(connection: AsyncConnection, key: str, user: str | None, limit: int, now: int) -> tuple[str, ...]:
    """Delete what is above the limit beside `key`; return the keys. The lock on the user is held."""
    if limit <= 0 or user is None:
        return ()
    others = await statements.hold_index(connection, "user", user, keep=key, now=now)
    evicted = tuple(others[: max(len(others) - limit + 1, 0)])
    await _delete(connection, evicted)
    return evicted


async def claim(connection: AsyncConnection, earlier: Earlier[bool], name: str, expires_at: int, token: int, now: int) -> bool:
    """Claim a name under a token of the caller's; return whether it is the caller's."""
    if await statements.insert(connection, claims, {"name": name, "expires_at": expires_at, "token": token, "now": now}):
        return True
    if not earlier.uncertain:
        return False
    owner = (await connection.execute(statements.CLAIMED_BY, {"at": name, "now": now})).scalar_one_or_none()
    return owner == token


async def remove_expired(connection: AsyncConnection, table: Table, limit: int, now: int) -> tuple[int, int]:
    """Delete up to `limit` expired rows that nobody else is at; return how many, and how many were records and not locks."""
    alone = expired.remove_alone(connection.dialect.name, table)
    if alone is not None:
        # Nothing is locked while the event loop is elsewhere: the statement commits itself.
        rows = (await connection.execute(alone, {"now": now, "limit": limit})).rowcount
        return rows, rows
    names = await expired.take_expired(connection, table, limit, now)
    if names:
        await expired.remove(connection, table, names, now)
    return len(names), sum(not statements.is_lock(name) for name in names)


def stored(row: Sequence[Any]) -> StoredSession:
    """Return what a row of `LOAD`, `FIND` or `PAGE` says."""
    key, version, data, expires_at, user, op_session, rank = tuple(row)
    return StoredSession(key, version, Entry(bytes(data), expires_at, user, op_session, rank))


def _is(found: StoredSession, entry: Entry, version: int) -> bool:
    """Whether this is what was written; a touch may have moved its expiry since."""
    theirs = found.entry
    mine = (version, entry.data, entry.user, entry.op_session, entry.rank)
    return (found.version, theirs.data, theirs.user, theirs.op_session, theirs.rank) == mine


def _columns(entry: Entry) -> dict[str, object]:
    return {
        "data": entry.data,
        "expires_at": entry.expires_at,
        "user_key": entry.user,
        "op_session_key": entry.op_session,
        "rank": entry.rank,
    }


def _refusal(*, live: bool) -> SessionConflictError | SessionGoneError:
    return SessionConflictError() if live else SessionGoneError()


def _together(earlier: Earlier[tuple[str, ...]], keys: Sequence[str]) -> tuple[str, ...]:
    """What was ended by this run, or by a first one: told once more rather than never."""
    return tuple(dict.fromkeys((*(key for result in earlier.results for key in result), *keys)))


async def _delete(connection: AsyncConnection, keys: Sequence[str]) -> None:
    await announce(connection, keys)
    for start in range(0, len(keys), _BATCH):
        await connection.execute(statements.DELETE_KEYS, {"keys": list(keys[start : start + _BATCH])})
