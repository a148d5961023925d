"""Marks revoked sessions, so that the next login of their browsers asks for credentials.

Otherwise the provider's single sign-on would undo "sign out" without a click, at the other browser's next navigation. Such a
browser still sends the cookie of the ended session. An expired session leaves no mark.

One claim per ended session, named after its key. More than a thousand at once write one note instead: then every browser with an
ended session counts as revoked for a while, so the cost is bounded and no browser is missed.

A native client logs in by a browser that never had its session. So where there are native clients, a revocation also leaves a
note about the user, with its time; likewise a login that ends the oldest session above the limit.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from session_core.concurrency import together
from session_core.errors import SessionConflictError, StoreUnavailableError
from session_core.sessions.notes import encode_note, note_digest, note_key
from session_core.stores.base import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from session_core.clock import Clock
    from session_core.identity import Identity
    from session_core.sessions.timeouts import Timeouts
    from session_core.stores.base import SessionStore

__all__ = ("RevocationMarks",)

_MAX_MARKS: Final = 1000
_AT_ONCE: Final = 100
"""Marks at the same time: on PostgreSQL they are one statement with one commit, as the end of so many sessions is."""
_MAX_KEPT_MS: Final = 30 * 24 * 3_600_000
_MANY_KEY: Final = note_digest("revoked-many") + "rev"


class RevocationMarks:
    """The marks in one store. An outage does not stop a revocation or a login that has ended another session."""

    def __init__(self, store: SessionStore, timeouts: Timeouts, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._users = False
        self._longest = timeouts.absolute_expiry(0)

    def include_users(self) -> None:
        """Also note whose sessions were revoked, from now on: there are native clients."""
        self._users = True

    def cover(self, timeouts: Timeouts) -> None:
        """Keep marks as long as sessions with these timeouts live, from now on: logins may choose them."""
        self._longest = max(self._longest, timeouts.absolute_expiry(0))

    async def leave(self, keys: Sequence[str], *, user: Identity | None = None, until: int = 0, before: int = 0) -> bool:
        """Mark the sessions of these keys, which are of `user`, as revoked; return whether that worked.

        Kept for the longest life of a session, or to `until` (Unix milliseconds) if one of these could live longer: so long the
        browser may send its cookie. At most thirty days. `before`: how many the same revocation has marked already.
        """
        now = self._clock.now()
        until = min(max(now + self._longest, until), now + _MAX_KEPT_MS)
        try:
            if before + len(keys) > _MAX_MARKS:
                await self._keep_note(_MANY_KEY, until)
            else:
                for start in range(0, len(keys), _AT_ONCE):
                    await together(*(self._store.claim(_name(key), until) for key in keys[start : start + _AT_ONCE]))
            if self._users and user is not None:
                await self._keep_note(_user_key(user), now + _MAX_KEPT_MS)
        except StoreUnavailableError:
            return False
        return True

    async def any_of(self, keys: Sequence[str]) -> bool:
        """Whether an ended session of one of these keys was revoked.

        Raises `StoreUnavailableError`.
        """
        if not keys:
            return False
        found = await together(self._store.load(_MANY_KEY), *(self._store.claimed_until(_name(key)) for key in keys))
        return any(mark is not None for mark in found)

    async def last_of(self, user: Identity) -> int | None:
        """Return when sessions of a user were last revoked (Unix milliseconds); None if not in the last thirty days.

        Raises `StoreUnavailableError`.
        """
        note = await self._store.load(_user_key(user))
        return None if note is None else note.entry.expires_at - _MAX_KEPT_MS

    async def _keep_note(self, key: str, until: int) -> None:
        if not await self._store.touch(key, until):
            with suppress(SessionConflictError):  # another process has just written it, with nearly the same expiry
                await self._store.create(key, Entry(encode_note(True), until))  # noqa: FBT003 - a note's whole content


def _user_key(user: Identity) -> str:
    return note_key("revoked-user", user.user_key)


def _name(key: str) -> str:
    return f"revoked-{key}"
