"""Renews the tokens of one session: once over all processes and callers; independent of requests and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final, TypeAlias

from session_core.errors import LoginRequiredError, SessionGoneError, TokenExchangeError
from session_core.identity import Identity
from session_core.ids import handle_of
from session_core.oidc.refresh.redemption import EndLogin, Redemption
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.single_flight import SingleFlight
from session_core.oidc.tokens.due_notes import DueNotes
from session_core.oidc.tokens.lease import LeaseWatch, take_lease
from session_core.oidc.tokens.stored import HeldTokens, SessionTokens
from session_core.oidc.tokens.vault import TokenSet

__all__ = ("TokenRefresh", "is_another")

Judge: TypeAlias = Callable[[TokenSet], bool]

_FIRST_POLL_SECONDS: Final = 0.05
_LAST_POLL_SECONDS: Final = 0.25
_ENOUGH_SECONDS: Final = 300.0
"""The longest time of a lease holder; a longer wait means a foreign or broken lease."""


class TokenRefresh:
    """Refreshes the tokens of one session at a time."""

    def __init__(self, relying_parties: RelyingParties, notes: DueNotes | None = None) -> None:
        self._rps = relying_parties
        self._notes = notes
        self.store = SessionTokens(relying_parties.sessions, relying_parties.vault)
        self.revocation = relying_parties.revocation
        self._redemption = Redemption(self.store, self.revocation)
        self._redeeming: SingleFlight[HeldTokens | None] = SingleFlight()
        self.lease_seconds = relying_parties.config.http_timeout_seconds + 2
        """A holder without a beat for so long counts as dead. Longer than the timeout of a call to the provider:
        even a frozen holder's call has ended by then."""

    async def renew(
        self, key: str, identity: Identity | None, *, is_new: Judge, is_usable: Judge, end: EndLogin, used: bool = True
    ) -> HeldTokens:
        """Return the session with new tokens: another caller's when there are any, else those of a redemption.

        While another caller redeems, tokens that are still valid are returned at once; without a refresh token the current ones.
        Raises what `Redemption.redeem` raises.
        """
        watch, pause, deadline = LeaseWatch(self.lease_seconds), _FIRST_POLL_SECONDS, monotonic() + _ENOUGH_SECONDS
        first: TokenSet | None = None
        while monotonic() < deadline:
            # Read the store: another caller may have refreshed the session since it was loaded.
            held = await self.store.load_for(key, identity)
            first = held.tokens if first is None else first
            # Tokens stored while we waited are new, even if the other node's clock differs.
            if is_another(held.tokens, first) or is_new(held.tokens) or held.tokens.refresh_token is None:
                return held
            if watch.may_take(held.tokens.lease):
                # In a separate task, for batches too: redeemed tokens are stored even if the caller stops waiting.
                renewed = await self._redeeming.run(object(), partial(self._redeem, held, used=used, end=end))
                if renewed is not None:
                    return renewed
                continue
            if is_usable(held.tokens):
                return held
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_POLL_SECONDS)
        raise TokenExchangeError("refresh_in_progress")

    async def end(self, held: HeldTokens) -> None:
        """End the session of a login that the provider has ended, outside of its requests."""
        for ended in await self._rps.sessions.store.delete(held.key):
            await self._rps.sessions.events.emit("session.destroyed", handle=handle_of(ended), identity=held.identity)

    async def drain(self, seconds: float) -> None:
        """Wait for running redemptions, at most `seconds`."""
        await self._redeeming.drain(seconds)

    async def _redeem(self, held: HeldTokens, *, used: bool, end: EndLogin) -> HeldTokens | None:
        connection = self._rps.of(held.tokens.provider, held.identity).connection
        try:
            lease = await take_lease(self.store, held, seconds=self.lease_seconds, used=used)
        except SessionGoneError:
            raise LoginRequiredError from None
        if lease is None:
            return None
        redeeming = self._redemption.redeem(connection, lease, used=used, end=end)
        renewed = await self._rps.sessions.calls.observed("tokens.refresh", redeeming)
        if renewed is not None and self._notes is not None:
            await self._notes.move(held, renewed)
        return renewed


def is_another(newest: TokenSet, first: TokenSet) -> bool:
    """Whether another caller has stored a new access token; until its ID token is validated, only the refresh token is new."""
    return newest.term != first.term and (newest.access_token, newest.expires_at) != (first.access_token, first.expires_at)
