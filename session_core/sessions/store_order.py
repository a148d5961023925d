"""A logical clock kept in the store. Independent of node clocks while the store keeps what it acknowledged.

One note holds a number. A login reads it when it begins, without writing; a logout raises it. So a login that began before has a
lower number, and one that begins later never has.

The number is raised to the time in milliseconds if that is higher. So a store that has lost its last writes (a failover, a
backup) does not repeat numbers: only then the clocks decide.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.sessions.notes import encode_note, note_digest, read_note
from session_core.stores.base import Entry, SessionStore

__all__ = ("Moment", "current_moment", "next_moment")

_KEY: Final = note_digest("store-order") + "ord"
_KEPT_MS: Final = 30 * 24 * 3_600_000
"""Longer than any login that is ordered by it."""
_MAX_ATTEMPTS: Final = 10


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """A position in the store's order. `count` names the count: a store that has lost it begins another."""

    count: int = 0
    number: int = 0

    def is_before(self, other: Moment) -> bool:
        """Whether this came before `other`. Also true if unknown, because they are of two counts."""
        return self.count != other.count or self.number < other.number


async def current_moment(store: SessionStore) -> Moment:
    """Return the current moment. Read-only, so anonymous clients cannot cause writes. Raises `StoreUnavailableError`."""
    stored = await store.load(_KEY)
    return Moment() if stored is None else read_note(stored.entry.data, Moment) or Moment()


async def next_moment(store: SessionStore, now: int) -> Moment:
    """Return a moment later than all returned before this call, and not later than any returned after it.

    `now` is in Unix milliseconds. Raises `StoreUnavailableError`.
    """
    for _ in range(_MAX_ATTEMPTS):
        stored = await store.load(_KEY)
        known = None if stored is None else read_note(stored.entry.data, Moment)
        try:
            if stored is None:
                begun = Moment(secrets.randbits(62) + 1, now)
                await store.create(_KEY, Entry(encode_note(begun), now + _KEPT_MS))
                return begun
            if known is None:
                await store.delete(_KEY)  # damaged: some stores neither return nor overwrite such a record
                continue
            raised = Moment(known.count, max(known.number + 1, now))
            entry = Entry(encode_note(raised), max(now + _KEPT_MS, stored.entry.expires_at))
            await store.replace(_KEY, entry, version=stored.version)
        except SessionConflictError:
            if known is not None:
                return Moment(known.count, known.number + 1)  # another process has raised it at least as far
        except SessionGoneError:
            continue
        else:
            return raised
    msg = "the session store loses the number that orders logins and logouts"
    raise StoreUnavailableError(msg)
