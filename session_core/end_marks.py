"""Remembers that the OP ended a session, or all of a user's, so that a login callback that is under way is refused.

Whoever ends sessions on the OP's behalf first leaves a mark here and then deletes; a login first stores its session and then
looks for a mark. Either the deletion meets the session, or the login meets the mark.

Which of the two came first is told by the OP's clock where it signed both: the ID token of the login and the logout token. The
clocks of the nodes that begin a login, leave the mark and look for it may differ by `TOLERATED_SKEW_MS`.

A mark is a claim, which cannot be renewed; so each is named after the span of time it was left in and a number. A second claim
beside it keeps what the OP's clock said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from session_core.clock import TOLERATED_SKEW_MS

if TYPE_CHECKING:
    from session_core.identity import Identity
    from session_core.stores.base import SessionStore

__all__ = ("EndMark", "leave_mark", "was_ended_since")

_SECOND_MS: Final = 1000
_MINUTE_MS: Final = 60_000
_SPAN_MS: Final = 5 * _MINUTE_MS
_KEPT_MS: Final = 10 * _MINUTE_MS + 2 * TOLERATED_SKEW_MS + _SPAN_MS + _MINUTE_MS
"""A login transaction; twice the difference of clocks, since a node that is behind takes a login for live longer, and a node that
is ahead sweeps earlier; those of one span, of which the first must not go before the last is of no more use; and time for the
callback itself."""
_OP_KEPT_MS: Final = _KEPT_MS + 2 * TOLERATED_SKEW_MS
"""Counted from the logout token's `iat`: longer than the mark, though that may be by minutes before the mark's own time."""


class EndMark(msgspec.Struct, frozen=True):
    """One end. `at` is when it was ordered here, in Unix milliseconds by the clock of the node that left the mark.

    `iat` is when the OP ordered it, in Unix seconds by the OP's clock (`iat` of the logout token, Back-Channel Logout 1.0, 2.4);
    None when nothing that the OP signed says so.
    """

    at: int
    iat: int | None = None

    def ends(self, identity: Identity, started_at: int) -> bool:
        """Whether it ends a login that began at `started_at` (Unix milliseconds, by the clock of the node where it began).

        Each clock is compared only with itself: the OP's first, the nodes' where the OP's leaves it open.
        """
        if self.iat is not None:
            # Whole seconds: of two tokens of one second nobody knows the order. It is refused; a second later it is not.
            if identity.iat is not None and identity.iat <= self.iat:
                return True
            # The user has proved who they are since. No code from before the logout leads to that.
            if identity.auth_time is not None and identity.auth_time > self.iat:
                return False
        # Not by `iat` alone: an OP may still redeem the code that it gave out before the logout, for a token of now.
        return self.at >= started_at


async def leave_mark(store: SessionStore, ended: str, now: int, *, iat: int | None = None) -> None:
    """Remember that what `ended` names (an OP session key, a user key) ended `now` (Unix milliseconds).

    `iat` is what the OP's clock said (Unix seconds); what it said more than half an hour ago tells no more than None.
    """
    number = 0
    while not await store.claim(name := _name(ended, now // _SPAN_MS, number), now + _KEPT_MS):
        number += 1
    if iat is not None and (until := iat * _SECOND_MS + _OP_KEPT_MS) > now:
        # A login that meets the first claim and not yet this one stored its session before the deletion, which meets that.
        await store.claim(_op_name(name), until)


async def was_ended_since(store: SessionStore, identity: Identity, started_at: int, now: int) -> bool:
    """Whether the OP ended this user's session, or all of the user's, after the login of `identity` began.

    `started_at` is in Unix milliseconds, at most ten minutes ago by the clock of the node that asks. Where the OP's clock does
    not tell, both times are taken at their word: a mark left at a node whose clock is behind that of the node where the login
    began seems older than it is, and a login that began before it by less than the difference is not refused.
    """
    # From before the start, too: the clock of the node that left the mark may be behind. And later than now: it may be ahead.
    first = max(started_at - TOLERATED_SKEW_MS, now - _KEPT_MS) // _SPAN_MS
    last = (now + TOLERATED_SKEW_MS) // _SPAN_MS
    for ended in filter(None, (identity.op_session_key, identity.user_key)):
        for span in range(first, last + 1):
            number = 0
            while (mark := await _read(store, _name(ended, span, number))) is not None:
                if mark.ends(identity, started_at):
                    return True
                number += 1
    return False


async def _read(store: SessionStore, name: str) -> EndMark | None:
    until = await store.claimed_until(name)
    if until is None:
        return None
    op_until = await store.claimed_until(_op_name(name))
    return EndMark(until - _KEPT_MS, None if op_until is None else (op_until - _OP_KEPT_MS) // _SECOND_MS)


def _name(ended: str, span: int, number: int) -> str:
    return f"ended-{ended}-{span}-{number}"


def _op_name(name: str) -> str:
    return f"{name}-op"
