"""Marks revoked sessions, so that the next login of their browsers asks for credentials.

Otherwise the provider's single sign-on would undo "sign out" without a click, at the other browser's next navigation. Such a
browser still sends the cookie of the ended session. An expired session leaves no mark.

One claim per ended session, named after its key. More than a thousand at once write one note instead: then every browser with an
ended session counts as revoked for a while, so the cost is bounded and no browser is missed.

A native client logs in by a browser that never had its session. So where there are native clients, a revocation also leaves a
note about the user, with its time.
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

    from session_core.identity import Identity
    from session_core.sessions.timeouts import Timeouts
    from session_core.stores.base import SessionStore

__all__ = ("last_revoked", "mark_revoked", "mark_user_revoked", "was_revoked")

_MAX_MARKS: Final = 1000
_AT_ONCE: Final = 100
"""Marks at the same time: on PostgreSQL they are one statement with one commit, as the end of so many sessions is."""
_MAX_KEPT_MS: Final = 30 * 24 * 3_600_000
_MANY_KEY: Final = note_digest("revoked-many") + "rev"


async def mark_revoked(store: SessionStore, keys: Sequence[str], timeouts: Timeouts, now: int, *, before: int = 0) -> bool:
    """Mark the sessions of these keys as revoked; return whether that worked. An outage does not stop a revocation.

    `now` is in Unix milliseconds. Kept for the longest life of a session, at most thirty days: by then the browser has dropped
    its cookie. `before`: how many the same revocation has marked already.
    """
    until = min(timeouts.absolute_expiry(now), now + _MAX_KEPT_MS)
    try:
        if before + len(keys) > _MAX_MARKS:
            await _mark_all(store, until)
        else:
            for start in range(0, len(keys), _AT_ONCE):
                await together(*(store.claim(_name(key), until) for key in keys[start : start + _AT_ONCE]))
    except StoreUnavailableError:
        return False
    return True


async def was_revoked(store: SessionStore, keys: Sequence[str]) -> bool:
    """Whether an ended session of one of these keys was revoked.

    Raises `StoreUnavailableError`.
    """
    if not keys:
        return False
    found = await together(store.load(_MANY_KEY), *(store.claimed_until(_name(key)) for key in keys))
    return any(mark is not None for mark in found)


async def mark_user_revoked(store: SessionStore, user: Identity, now: int) -> bool:
    """Note that sessions of a user were revoked at `now` (Unix milliseconds); return whether that worked."""
    try:
        await _keep_note(store, _user_key(user), now + _MAX_KEPT_MS)
    except StoreUnavailableError:
        return False
    return True


async def last_revoked(store: SessionStore, user: Identity) -> int | None:
    """Return when sessions of a user were last revoked (Unix milliseconds); None if not in the last thirty days.

    Raises `StoreUnavailableError`.
    """
    note = await store.load(_user_key(user))
    return None if note is None else note.entry.expires_at - _MAX_KEPT_MS


async def _mark_all(store: SessionStore, until: int) -> None:
    await _keep_note(store, _MANY_KEY, until)


async def _keep_note(store: SessionStore, key: str, until: int) -> None:
    if not await store.touch(key, until):
        with suppress(SessionConflictError):  # another process has just written it, with nearly the same expiry
            await store.create(key, Entry(encode_note(True), until))  # noqa: FBT003 - a note's whole content


def _user_key(user: Identity) -> str:
    return note_key("revoked-user", user.user_key)


def _name(key: str) -> str:
    return f"revoked-{key}"
