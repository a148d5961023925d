"""Remembers that a session at the OP has ended, so that a login callback of it that is under way is refused.

Whoever ends an OP session first leaves a mark here and then deletes its sessions; a login first stores its session and then looks
for a mark. Either the deletion meets the session, or the login meets the mark.

A mark is a claim, which cannot be renewed; so each is named after the minute it was left in and a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from session_core.stores.base import SessionStore

__all__ = ("KEPT_MS", "leave_mark", "was_marked_since")

_MINUTE_MS: Final = 60_000
KEPT_MS: Final = 11 * _MINUTE_MS
"""A login transaction (ten minutes), and a margin for clocks that differ."""


async def leave_mark(store: SessionStore, op_session_key: str, now: int) -> None:
    """Remember that the OP session ended `now` (Unix milliseconds)."""
    number = 0
    while not await store.claim(_name(op_session_key, now // _MINUTE_MS, number), now + KEPT_MS):
        number += 1


async def was_marked_since(store: SessionStore, op_session_key: str, started_at: int, now: int) -> bool:
    """Whether the OP session ended at or after `started_at` (Unix milliseconds, at most eleven minutes ago)."""
    first = max(started_at, now - KEPT_MS) // _MINUTE_MS
    # One minute more: the node that left the mark may have a clock that is ahead of ours.
    for minute in range(first, now // _MINUTE_MS + 2):
        number = 0
        while (until := await store.claimed_until(_name(op_session_key, minute, number))) is not None:
            if until - KEPT_MS >= started_at:
                return True
            number += 1
    return False


def _name(op_session_key: str, minute: int, number: int) -> str:
    return f"ended-{op_session_key}-{minute}-{number}"
