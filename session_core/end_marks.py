"""Remembers that the OP ended a session, or all of a user's, so that a login callback that is under way is refused.

Whoever ends sessions on the OP's behalf first leaves a mark here and then deletes; a login first stores its session and then
looks for a mark. Either the deletion meets the session, or the login meets the mark.

A mark is a claim, which cannot be renewed; so each is named after the span of time it was left in and a number. The clocks of
the nodes that leave and look for it may differ by `TOLERATED_SKEW_MS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from session_core.clock import TOLERATED_SKEW_MS

if TYPE_CHECKING:
    from session_core.stores.base import SessionStore

__all__ = ("leave_mark", "was_marked_since")

_MINUTE_MS: Final = 60_000
_SPAN_MS: Final = 5 * _MINUTE_MS
_KEPT_MS: Final = 10 * _MINUTE_MS + TOLERATED_SKEW_MS + _SPAN_MS + _MINUTE_MS
"""A login transaction; a mark whose author's clock is behind; those of one span, of which the first must not go before the last
is of no more use; and time for the callback itself."""


async def leave_mark(store: SessionStore, ended: str, now: int) -> None:
    """Remember that what `ended` names (an OP session key, a user key) ended `now` (Unix milliseconds)."""
    number = 0
    while not await store.claim(_name(ended, now // _SPAN_MS, number), now + _KEPT_MS):
        number += 1


async def was_marked_since(store: SessionStore, ended: str, started_at: int, now: int) -> bool:
    """Whether what `ended` names was ended at or after `started_at` (Unix milliseconds, at most ten minutes ago).

    Both times are taken at their word: when the clock of the node that left the mark is behind that of the node where the login
    began, a mark that is younger by less than the difference seems to be older, and is not seen.
    """
    first = max(started_at, now - _KEPT_MS) // _SPAN_MS
    # Later than now, too: the clock of the node that left the mark may be ahead of ours.
    for span in range(first, (now + TOLERATED_SKEW_MS) // _SPAN_MS + 1):
        number = 0
        while (until := await store.claimed_until(_name(ended, span, number))) is not None:
            if until - _KEPT_MS >= started_at:
                return True
            number += 1
    return False


def _name(ended: str, span: int, number: int) -> str:
    return f"ended-{ended}-{span}-{number}"
