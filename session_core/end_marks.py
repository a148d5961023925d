"""Remembers that the OP ended a session, or all of a user's, so that a login callback that is under way is refused.

Whoever ends sessions on the OP's behalf first leaves a mark here and then deletes; a login first stores its session and then
looks for a mark. Either the deletion meets the session, or the login meets the mark.

A mark is a claim, which cannot be renewed; so each is named after the minute it was left in and a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from session_core.stores.base import SessionStore

__all__ = ("leave_mark", "was_marked_since")

_MINUTE_MS: Final = 60_000
_KEPT_MS: Final = 11 * _MINUTE_MS
"""A login transaction (ten minutes), and a margin for clocks that differ."""


async def leave_mark(store: SessionStore, ended: str, now: int) -> None:
    """Remember that what `ended` names (an OP session key, a user key) ended `now` (Unix milliseconds)."""
    number = 0
    while not await store.claim(_name(ended, now // _MINUTE_MS, number), now + _KEPT_MS):
        number += 1


async def was_marked_since(store: SessionStore, ended: str, started_at: int, now: int) -> bool:
    """Whether what `ended` names was ended at or after `started_at` (Unix milliseconds, at most eleven minutes ago)."""
    first = max(started_at, now - _KEPT_MS) // _MINUTE_MS
    # One minute more: the node that left the mark may have a clock that is ahead of ours.
    for minute in range(first, now // _MINUTE_MS + 2):
        number = 0
        while (until := await store.claimed_until(_name(ended, minute, number))) is not None:
            if until - _KEPT_MS >= started_at:
                return True
            number += 1
    return False


def _name(ended: str, minute: int, number: int) -> str:
    return f"ended-{ended}-{minute}-{number}"
