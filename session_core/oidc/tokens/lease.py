"""Lets one process at a time redeem the refresh token of a session; independent of providers.

The lease is stored in the session beside the token, and is taken, renewed and given back by compare-and-swap. It contains no
time. A live holder increments it; a waiter measures with its own clock how long the count has not changed. So clock differences
between machines and restarts of processes do not matter.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final

import msgspec

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.oidc.tokens.stored import HeldTokens, SessionTokens
from session_core.oidc.tokens.vault import Lease, TokenSet

__all__ = ("HeldLease", "LeaseWatch", "take_lease")

_BEATS: Final = 4
"""Renewals within the time after which a holder counts as dead."""


class LeaseWatch:
    """Watches another holder's lease until it is free, or was not renewed for `seconds`."""

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
    """A lease that we hold. `base` is the session as last written or read here."""

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
        """Whether we hold the lease for as long as a call to the provider takes.

        Reads the store unless the lease was just renewed: the machine may have been suspended between two steps.
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
        """Give the lease back so that others need not wait; if that fails, they take it after the timeout."""
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
            # Measured from before the write: waiters may have seen it early.
            self._renewed_at = started
        return renewed

    def _counted(self, tokens: TokenSet) -> TokenSet | None:
        if not self.is_in(tokens):
            return None
        return msgspec.structs.replace(tokens, lease=msgspec.structs.replace(tokens.lease, beat=tokens.lease.beat + 1))


async def take_lease(store: SessionTokens, seen: HeldTokens, *, seconds: float, used: bool) -> HeldLease | None:
    """Take the lease of a session if it is still in the state that was checked; else None.

    `seconds` without a renewal, others may take it. Raises `SessionGoneError`, `StoreUnavailableError`.
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
        # Only the answer was lost: check the store, because a lease without a known holder would make all processes wait.
        found = await store.load(seen.key)
        if found is None or found.tokens.lease.holder != holder:
            raise
        taken, changed = found, True
    return HeldLease(store, taken, seconds=seconds, since=started) if changed else None


def freed(lease: Lease) -> Lease:
    """Return the lease without its holder; the term is kept."""
    return Lease(lease.term)
