"""Tells what came first at two nodes without asking a clock: the store counts.

The number is the version of one note, so it grows with every write of it, for all nodes alike. Whoever begins something reads it,
and writes nothing; whoever must be told apart from what began before raises it, once the matter is at hand. What began before is
then always lower, and what begins after never is.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.notes import encode_note, note_digest, read_note
from session_core.stores.base import Entry

if TYPE_CHECKING:
    from session_core.stores.base import SessionStore

__all__ = ("Moment", "current_moment", "next_moment")

_KEY: Final = note_digest("store-order") + "ord"
_KEPT_MS: Final = 30 * 24 * 3_600_000
"""Longer than anything that is told apart by it."""
_MAX_ATTEMPTS: Final = 10


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """A place in the order that a store keeps. `count` names the count: a store that has lost it begins another."""

    count: int = 0
    number: int = 0

    def is_before(self, other: Moment) -> bool:
        """Whether this came before `other`. Also when that cannot be told: they are of two counts."""
        return self.count != other.count or self.number < other.number


async def current_moment(store: SessionStore) -> Moment:
    """Return the moment it is now. Reads only: whatever strangers begin, nothing is written. Raises `StoreUnavailableError`."""
    stored = await store.load(_KEY)
    return Moment() if stored is None else Moment(read_note(stored.entry.data, int) or 0, stored.version)


async def next_moment(store: SessionStore, now: int) -> Moment:
    """Return a moment after every one that anybody was given before this call, and not after any that is given once it is over.

    `now` is in Unix milliseconds, and only decides how long the count is kept. Raises `StoreUnavailableError`.
    """
    until = now + _KEPT_MS
    for _ in range(_MAX_ATTEMPTS):
        stored = await store.load(_KEY)
        count = secrets.randbits(62) + 1 if stored is None else read_note(stored.entry.data, int) or 0
        try:
            if stored is None:
                await store.create(_KEY, Entry(encode_note(count), until))
                return Moment(count, 1)
            entry = Entry(encode_note(count), max(until, stored.entry.expires_at))
            return Moment(count, await store.replace(_KEY, entry, version=stored.version))
        except SessionConflictError:
            if stored is not None:
                return Moment(count, stored.version + 1)  # others have raised it since, at least as far
        except SessionGoneError:
            continue
    msg = "the session store does not keep its count"
    raise StoreUnavailableError(msg)
