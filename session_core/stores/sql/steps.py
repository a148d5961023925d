"""The writing steps of the SQL store, each in one transaction or statement, and safe to run again.

`Earlier` means that the answer to a first run was lost. Then a step compares what is stored with its own write, by random bytes
in it; if that is no longer possible, it is an outage. A step is never applied twice, and never mistakes its own first run for
that of another caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.stores.announcements import announced_name
from session_core.stores.base import Entry, StoredSession
from session_core.stores.sql import statements
from session_core.stores.sql.link import Late, Link, TakenError

if TYPE_CHECKING:
    from session_core.stores.sql.database import Earlier
    from session_core.stores.sql.statements import Statement

__all__ = (
    "AT_ONCE", "LOCK_PREFIX", "SurplusError", "begin", "claim", "columns", "end", "end_some", "end_surplus", "extend", "lock",
    "lock_number", "make_room", "move", "overwrite", "stored",
)  # fmt: skip

LOCK_PREFIX: Final = "lock:"
"""The prefix of claims that are MySQL's locks; real claims have no colon."""
_LOCK_ROW_MS: Final = 3_600_000
AT_ONCE: Final = 200
"""Keys in one statement, which takes a millisecond or two, and sessions that one transaction ends."""
_TAKEN: Final = "the session key is taken"


class SurplusError(Exception):
    """A user has far more sessions than the limit, because it was lowered: `end_surplus` must end them first."""


async def begin(link: Link, earlier: Earlier[Any], key: str, entry: Entry, now: int) -> bool:
    """Insert a new session; return False when a first run had done so. Raises `SessionConflictError`."""
    values = {"key": key, "now": now, **columns(entry)}
    if await _insert(link, statements.CREATE, statements.FORGET_EXPIRED_SESSION, values):
        return True
    if earlier.uncertain:
        found = await _load(link, key, now)
        if found is not None and _is(found, entry, 1):
            return False
    raise SessionConflictError(_TAKEN)


async def overwrite(link: Link, earlier: Earlier[int], key: str, entry: Entry, version: int, now: int) -> int:
    """Overwrite a session of `version`; return the new version."""
    values = {"key": key, "now": now, "expected": version, "version": version + 1, "successor": None, **columns(entry)}
    if await link.count(statements.OVERWRITE, values) == 1:
        return version + 1
    found = await _load(link, key, now)
    if found is None:
        raise SessionGoneError
    if found.version == version:
        raise Late  # no other reason remains
    if earlier.uncertain:
        if _is(found, entry, version + 1):
            return version + 1
        if found.version > version + 1:
            # Overwritten by others, perhaps after this write: a conflict would make the caller apply it again.
            msg = "it is unknown whether the write was made"
            raise StoreUnavailableError(msg)
    raise SessionConflictError


async def extend(link: Link, key: str, later: int, now: int) -> bool:
    """Move the expiry of a live session forward; return whether it is live."""
    at = {"key": key, "now": now}
    if await link.count(statements.TOUCH, {**at, "later": later}) == 1:
        return True
    if await link.rows(statements.VERSION, at):
        raise Late
    return False


async def move(
    link: Link,
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
    at = {"key": old_key, "now": now}
    retired = columns(Entry(b"", successor_until))
    values = {**at, "expected": version, "version": version, **retired, "successor": new_key}
    if await link.count(statements.OVERWRITE, values) != 1:
        if earlier.uncertain:
            # No other caller knows the new key.
            held = await link.rows(statements.HOLD, {"key": old_key})
            if held and held[0][0] == new_key:
                return False
        found = await link.rows(statements.VERSION, at)
        if not found:
            raise SessionGoneError
        if found[0][0] == version:
            raise Late
        raise SessionConflictError
    created = {"key": new_key, "now": now, **columns(entry)}
    if not await _insert(link, statements.CREATE, statements.FORGET_EXPIRED_SESSION, created):
        raise SessionConflictError(_TAKEN)
    _announce(link, [old_key])
    return True


async def end(link: Link, earlier: Earlier[tuple[str, ...]], key: str, now: int) -> tuple[str, ...]:
    """Delete a session and what it was rotated to; return the keys of those that were live."""
    seen: list[str] = []
    deleted: list[str] = []
    following: str | None = key
    while following is not None and following not in seen:
        # One after another: each lookup waits for a concurrent rotation of its key, and then sees the result.
        held = await link.rows(statements.HOLD, {"key": following})
        if not held:
            break
        successor, expires_at = held[0]
        seen.append(following)
        if successor is None and expires_at > now:
            deleted.append(following)
        following = successor if expires_at > now else None
    await _delete(link, seen)
    return _together(earlier.results, deleted)


async def end_some(
    link: Link, earlier: Earlier[tuple[tuple[str, ...], bool]], index: str, value: str, *, keep: str, now: int
) -> tuple[tuple[str, ...], bool]:
    """Delete some of the live sessions of an index, except `keep`; return their keys, and whether more may be left."""
    await lock(link, [value], now)
    values = {"value": value, "now": now, "keep": keep, "most": AT_ONCE}
    found = await link.rows(statements.END_SOME_OF[index], values)
    if link.dialect == "postgresql":
        keys: Sequence[str] = [key for key, was_live in found if was_live]
        _announce(link, keys)
    else:
        keys = await _hold(link, [key for (key,) in found], now)
        await _delete(link, keys)
    return _together([result for result, _ in earlier.results], keys), len(found) == AT_ONCE


async def end_surplus(
    link: Link, earlier: Earlier[tuple[tuple[str, ...], bool]], user: str, *, keep: str, limit: int, now: int
) -> tuple[tuple[str, ...], bool]:
    """Delete some of a user's sessions above `limit` beside `keep`, as `end_some` does; those of the lowest rank first."""
    await lock(link, [user], now)
    surplus = await _count_others(link, user, keep, now) - limit
    keys = await _hold_others(link, user, keep, now, most=max(min(surplus, AT_ONCE), 0))
    await _delete(link, keys)
    return _together([result for result, _ in earlier.results], keys), surplus > AT_ONCE


async def make_room(link: Link, key: str, user: str | None, limit: int, now: int) -> tuple[str, ...]:
    """Delete what is above the limit beside `key`; return the keys. The lock on the user is held.

    Raises `SurplusError` if that is more than one transaction should delete.
    """
    if limit <= 0 or user is None:
        return ()
    surplus = await _count_others(link, user, key, now) - limit + 1
    if surplus <= 0:
        return ()
    if surplus > AT_ONCE:
        raise SurplusError
    others = await _hold_others(link, user, key, now, most=limit + surplus)
    evicted = others[: max(len(others) - limit + 1, 0)]
    await _delete(link, evicted)
    return tuple(evicted)


async def claim(link: Link, earlier: Earlier[bool], name: str, expires_at: int, token: int, now: int) -> bool:
    """Claim a name under a token of the caller's; return whether it is the caller's."""
    values = {"name": name, "expires_at": expires_at, "token": token, "now": now}
    if await _insert(link, statements.CLAIM, statements.FORGET_EXPIRED_CLAIM, values):
        return True
    if not earlier.uncertain:
        return False
    owner = await link.rows(statements.CLAIMED_BY, {"name": name, "now": now})
    return bool(owner) and owner[0][0] == token


async def lock(link: Link, names: Iterable[str | None], now: int) -> None:
    """Hold locks on these names until the transaction ends, in one order for all: no deadlock among them.

    Row locks do not cover rows that another transaction is about to insert: for a limit or an index.
    """
    wanted = sorted({name for name in names if name is not None})
    if link.dialect != "postgresql":
        for name in wanted:
            await link.count(statements.LOCK, {"name": f"{LOCK_PREFIX}{name}", "expires_at": now + _LOCK_ROW_MS})
    elif wanted:
        await link.script("; ".join(f"SELECT pg_advisory_xact_lock({lock_number(name)})" for name in wanted))


def lock_number(name: str) -> str:
    """Return PostgreSQL's number for the lock on a name."""
    digest = sha256(b"session_core:" + name.encode()).digest()
    return str(int.from_bytes(digest[:8], "big", signed=True))


def stored(row: Sequence[Any]) -> StoredSession:
    """Return the session in a row of `LOAD`, `FIND` or `PAGE`."""
    key, version, data, expires_at, user, op_session, rank = row
    return StoredSession(key, version, Entry(data, expires_at, user, op_session, rank))


def columns(entry: Entry) -> dict[str, object]:
    """Return the values that a row has from its entry."""
    return {
        "data": entry.data,
        "expires_at": entry.expires_at,
        "user_key": entry.user,
        "op_session_key": entry.op_session,
        "rank": entry.rank,
        "successor": None,
    }


async def _load(link: Link, key: str, now: int) -> StoredSession | None:
    rows = await link.rows(statements.LOAD, {"keys": [key], "now": now})
    return stored(rows[0]) if rows else None


async def _insert(link: Link, insert: Statement, forget: Statement, values: Mapping[str, object]) -> bool:
    """Insert a row, over an expired one; return whether there was room for it."""
    if link.dialect == "postgresql":
        return bool(await link.rows(insert, values))
    await link.count(forget, values)
    try:
        return await link.count(insert, values) == 1
    except TakenError:
        return False


async def _count_others(link: Link, user: str, keep: str, now: int) -> int:
    ((count,),) = await link.rows(statements.COUNT_OTHERS, {"value": user, "now": now, "keep": keep})
    return int(count)


async def _hold_others(link: Link, user: str, keep: str, now: int, *, most: int) -> Sequence[str]:
    """Lock live sessions of a user except `keep`; return their keys, those of the lowest rank first.

    The lock on the user is held, so none is added meanwhile.
    """
    values = {"value": user, "now": now, "keep": keep, "most": most}
    keys = [key for (key,) in await link.rows(statements.KEYS_OF_OTHERS, values)]
    return keys if link.dialect == "postgresql" else await _hold(link, keys, now)


async def _hold(link: Link, keys: Sequence[str], now: int) -> Sequence[str]:
    """Lock those of the sessions that are live; return their keys, those of the lowest rank first in each statement."""
    held: list[str] = []
    for start in range(0, len(keys), AT_ONCE):
        some = {"keys": list(keys[start : start + AT_ONCE]), "now": now}
        held += [key for (key,) in await link.rows(statements.HOLD_KEYS, some)]
    return held


async def _delete(link: Link, keys: Sequence[str]) -> None:
    _announce(link, keys)
    for start in range(0, len(keys), AT_ONCE):
        await link.count(statements.DELETE_KEYS, {"keys": list(keys[start : start + AT_ONCE])})


def _announce(link: Link, keys: Sequence[str]) -> None:
    link.announce([announced_name(key.encode()) for key in keys])


def _is(found: StoredSession, entry: Entry, version: int) -> bool:
    """Whether this is the written record; a touch may have moved its expiry since."""
    theirs = found.entry
    mine = (version, entry.data, entry.user, entry.op_session, entry.rank)
    return (found.version, theirs.data, theirs.user, theirs.op_session, theirs.rank) == mine


def _together(earlier: Sequence[tuple[str, ...]], keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys ended by this run or by an earlier one: better reported twice than never."""
    return tuple(dict.fromkeys((*(key for result in earlier for key in result), *keys)))
