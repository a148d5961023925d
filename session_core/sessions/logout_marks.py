"""Marks that the OP ended a session, or all of a user's, so that concurrent login callbacks are refused.

Code that ends sessions for the OP first stores a mark here and then deletes; a login first stores its session and then looks for
a mark. So either the deletion finds the session, or the login finds the mark. A mark ends all logins that began before it by the
store's own count (`session_core.sessions.store_order`), independent of nodes and clocks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from session_core.clock import TOLERATED_SKEW_MS
from session_core.concurrency import back_off, together
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.identity import Identity
from session_core.sessions.notes import encode_note, note_key, read_note
from session_core.sessions.store_order import Moment, next_moment
from session_core.stores.base import Entry, SessionStore

__all__ = ("CERTAIN_MS", "EndMark", "leave_mark", "was_ended_since", "without_sid_key")

_MINUTE_MS: Final = 60_000
_KEPT_MS: Final = 10 * _MINUTE_MS + 2 * TOLERATED_SKEW_MS + _MINUTE_MS
"""The lifetime of a login transaction, twice the clock tolerance (a node whose clock is behind accepts a login longer, one ahead
sweeps earlier), and time for the callback."""
CERTAIN_MS: Final = 10 * _MINUTE_MS
"""How long after a login the marks that could end it exist, by the clock of any node."""
_MAX_ATTEMPTS: Final = 100


class EndMark(msgspec.Struct, frozen=True, array_like=True):
    """The last times that the OP ended a session or a user's sessions.

    `signed` is the last with a time of the OP's, and `iat` the highest of these times: Unix seconds by the OP's clock (`iat` of
    the logout token, Back-Channel Logout 1.0, 2.4). `unsigned` is the last without: a front-channel frame, or an application that
    gave no `iat`.
    """

    unsigned: Moment | None = None
    signed: Moment | None = None
    iat: int = 0

    def after(self, moment: Moment, iat: int | None) -> EndMark:
        """Return the mark after one more end."""
        if iat is None:
            return msgspec.structs.replace(self, unsigned=_later(self.unsigned, moment))
        return EndMark(self.unsigned, _later(self.signed, moment), iat if self.signed is None else max(iat, self.iat))

    def ends(self, identity: Identity, begun: Moment) -> bool:
        """Whether it ends a login of `identity` that began at `begun`."""
        if self.unsigned is not None and begun.is_before(self.unsigned):
            return True
        if self.signed is None or not begun.is_before(self.signed):
            return False
        # The user has authenticated since, by the clock that signed both. A code from before the logout cannot have this
        # `auth_time`, and the OP may have ended the old session because of this login.
        return identity.auth_time is None or identity.auth_time <= self.iat


async def leave_mark(store: SessionStore, ended: str, now: int, *, iat: int | None = None) -> None:
    """Mark `ended` (an OP session key or a user key) as ended, for every login that began before this call.

    `now` is in Unix milliseconds and sets the expiry of the mark; `iat` is the OP's time (Unix seconds).
    Raises `StoreUnavailableError`.
    """
    moment, key = await next_moment(store, now), _key(ended)
    for attempt in range(_MAX_ATTEMPTS):
        stored = await store.load(key)
        mark = EndMark() if stored is None else read_note(stored.entry.data, EndMark)
        try:
            if mark is None:
                await store.delete(key)  # damaged: the new mark refuses every login that the old one could refuse
            elif stored is None:
                await store.create(key, Entry(encode_note(mark.after(moment, iat)), now + _KEPT_MS))
                return
            else:
                until = max(now + _KEPT_MS, stored.entry.expires_at)
                await store.replace(key, Entry(encode_note(mark.after(moment, iat)), until), version=stored.version)
                return
        except (SessionConflictError, SessionGoneError):
            await back_off(attempt)
    msg = "other processes kept writing the same mark"
    raise StoreUnavailableError(msg)


async def was_ended_since(store: SessionStore, identity: Identity, begun: Moment) -> bool:
    """Whether the OP ended this user's session, or all of the user's, after the login of `identity` began at `begun`.

    Marks outlive a login, which may take ten minutes. Raises `StoreUnavailableError`.
    """
    names = (identity.op_session_key or without_sid_key(identity), identity.user_key)
    for stored in await together(*(store.load(_key(ended)) for ended in names)):
        if stored is None:
            continue
        mark = read_note(stored.entry.data, EndMark)
        if mark is None or mark.ends(identity, begun):  # an unreadable mark counts as one
            return True
    return False


def without_sid_key(user: Identity) -> str:
    """Return the mark name for a user's logins without `sid`, which may belong to any of the user's OP sessions."""
    return f"{user.user_key}.without_sid"


def _later(one: Moment | None, other: Moment) -> Moment:
    # Another count: the store has lost the old one, so the order is unknown.
    return other if one is None or one.is_before(other) else one


def _key(ended: str) -> str:
    return note_key("ended", ended)
