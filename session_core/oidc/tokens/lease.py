"""Lets one process at a time redeem the refresh token of a session; independent of providers.

The lease lies in the session itself, beside the token it is for, and is taken, renewed and given back by compare-and-swap. It
holds no time of day. A live holder increments it; a waiter measures on a clock of its own for how long the count
has stood still. So it does not matter how far the clocks of two machines are apart, nor that a process was restarted.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.oidc.tokens.vault import Lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from session_core.oidc.tokens.stored import HeldTokens, SessionTokens
    from session_core.oidc.tokens.vault import TokenSet

__all__ = ("HeldLease", "LeaseWatch", "take_lease")

_BEATS: Final = 4
"""Renewals within the time after which a silent holder counts as dead."""


class LeaseWatch:
    """Watches another holder's lease until it is free, or its holder has been silent for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: Lease | None = None
        self._since = 0.0

    def may_take(self, lease: Lease) -> bool:
        """Whether the lease, as it is in the store now, may be taken."""
        if not lease.held:
            return True
        if lease != self._seen:
            self._seen, self._since = lease, monotonic()
        return monotonic() - self._since >= self._seconds


class HeldLease:
    """A lease of ours. `base` is the session as we last wrote or saw it."""

    def __init__(self, store: SessionTokens, base: HeldTokens, *, seconds: float, since: float) -> None:
        self._store = store
        self._seconds = seconds
        self._renewed_at = since
        self.base = base
        self.term = base.tokens.lease.term
        self.family = base.tokens.family
        self.holder = base.tokens.lease.holder

    def is_in(self, tokens: TokenSet) -> bool:
        """Whether these tokens are still under our lease."""
        return tokens.family == self.family and tokens.lease.holder == self.holder

    async def confirm(self) -> bool:
        """Whether the lease is ours, surely and for as long as a call to the provider takes.

        Asks the store when the last renewal is not from just now: between two of our steps the machine may have stood still.
        """
        if monotonic() - self._renewed_at < self._seconds / _BEATS:
            return True
        with suppress(StoreUnavailableError, SessionConflictError):
            return await self._renew()
        return False

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Renew the lease for as long as the block runs."""
        beating = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating

    async def release(self) -> None:
        """Give the lease back, so that the next one need not wait; when that fails, they wait and take it."""
        with suppress(StoreUnavailableError, SessionGoneError, SessionConflictError):
            await self._store.change(self.base, self._freed, used=False)

    def _freed(self, tokens: TokenSet) -> TokenSet | None:
        if not self.is_in(tokens):
            return None
        return msgspec.structs.replace(tokens, lease=freed(tokens.lease))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / _BEATS)
            try:
                if not await self._renew():
                    return
            except (StoreUnavailableError, SessionConflictError):
                continue  # a process that wants to take it needs the store as well

    async def _renew(self) -> bool:
        started = monotonic()
        try:
            self.base, renewed = await self._store.change(self.base, self._counted, used=False)
        except SessionGoneError:
            return False
        if renewed:
            # From before the write: those who wait may have seen it when it had hardly begun.
            self._renewed_at = started
        return renewed

    def _counted(self, tokens: TokenSet) -> TokenSet | None:
        if not self.is_in(tokens):
            return None
        return msgspec.structs.replace(tokens, lease=msgspec.structs.replace(tokens.lease, beat=tokens.lease.beat + 1))


async def take_lease(store: SessionTokens, seen: HeldTokens, *, seconds: float, used: bool) -> HeldLease | None:
    """Take the lease of a session, in the very state in which it was judged to be takeable; None when that has changed.

    `seconds` is how long we may be silent before others take it. Raises `SessionGoneError`, `StoreUnavailableError`.
    """
    judged = seen.tokens
    holder = secrets.token_urlsafe(9)

    def take(tokens: TokenSet) -> TokenSet | None:
        # Other data of the session may have changed meanwhile; tokens and lease must not have.
        if (tokens.family, tokens.term, tokens.refresh_token, tokens.lease) != (
            judged.family, judged.term, judged.refresh_token, judged.lease,
        ):  # fmt: skip
            return None
        family = tokens.family or secrets.token_urlsafe(9)
        return msgspec.structs.replace(tokens, family=family, lease=Lease(tokens.lease.term + 1, holder))

    started = monotonic()
    try:
        taken, changed = await store.change(seen, take, used=used)
    except StoreUnavailableError:
        # The answer is missing, not the step: a lease that no process knows to be its own would make all of them wait.
        found = await store.load(seen.key)
        if found is None or found.tokens.lease.holder != holder:
            raise
        taken, changed = found, True
    return HeldLease(store, taken, seconds=seconds, since=started) if changed else None


def freed(lease: Lease) -> Lease:
    """Return the lease without its holder; the term stays counted."""
    return Lease(lease.term)
