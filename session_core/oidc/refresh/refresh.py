"""Renews the tokens of one session: once over all processes and callers; independent of requests and batches."""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from session_core.errors import LoginRequiredError, SessionGoneError, TokenExchangeError
from session_core.ids import handle_of
from session_core.oidc.refresh.redemption import EndLogin, Redemption
from session_core.oidc.single_flight import SingleFlight
from session_core.oidc.tokens.lease import LeaseWatch, take_lease
from session_core.oidc.tokens.stored import HeldTokens, SessionTokens
from session_core.oidc.tokens.vault import TokenSet

if TYPE_CHECKING:
    from session_core.identity import Identity
    from session_core.oidc.relying_parties import RelyingParties
    from session_core.oidc.tokens.due_notes import DueNotes

__all__ = ("Judge", "TokenRefresh", "is_another")

Judge: TypeAlias = Callable[[TokenSet], bool]

_FIRST_POLL_SECONDS: Final = 0.05
_LAST_POLL_SECONDS: Final = 0.25
_ENOUGH_SECONDS: Final = 300.0
"""No holder of a lease takes longer than this; a watch that does has met something that is not ours."""


class TokenRefresh:
    """The one way in which tokens are refreshed."""

    def __init__(self, relying_parties: RelyingParties, notes: DueNotes | None = None) -> None:
        self._rps = relying_parties
        self._notes = notes
        self.store = SessionTokens(relying_parties.sessions, relying_parties.vault)
        self.revocation = relying_parties.revocation
        self._redemption = Redemption(self.store, self.revocation)
        self._redeeming: SingleFlight[HeldTokens | None] = SingleFlight()
        self.lease_seconds = relying_parties.config.http_timeout_seconds + 2
        """A holder that is silent for so long counts as dead. Longer than a call to the provider may take: were the holder only
        standing still, its call has come to an end, too."""

    async def renew(
        self, key: str, identity: Identity | None, *, is_new: Judge, is_usable: Judge, end: EndLogin, used: bool = True
    ) -> HeldTokens:
        """Return the session with new tokens: another caller's when there are any, else those of a redemption.

        While another caller redeems, tokens that are still usable are returned at once; without a refresh token those that there
        are. Raises what `Redemption.redeem` raises.
        """
        watch, pause, deadline = LeaseWatch(self.lease_seconds), _FIRST_POLL_SECONDS, monotonic() + _ENOUGH_SECONDS
        first: TokenSet | None = None
        while monotonic() < deadline:
            # From the store: the caller may have loaded the session before another one refreshed it.
            held = await self.store.load_for(key, identity)
            first = held.tokens if first is None else first
            # What was fetched while we watched is new, also when the clock of who fetched it says something else than ours.
            if is_another(held.tokens, first) or is_new(held.tokens) or held.tokens.refresh_token is None:
                return held
            if watch.may_take(held.tokens.lease):
                renewed = await self._redeem(held, used=used, end=end)
                if renewed is not None:
                    return renewed
                continue
            if is_usable(held.tokens):
                return held
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_POLL_SECONDS)
        raise TokenExchangeError("refresh_in_progress")

    async def end(self, held: HeldTokens) -> None:
        """End the session of a login that the provider has ended, when no request is there to do it."""
        for ended in await self._rps.sessions.store.delete(held.key):
            await self._rps.sessions.events.emit("session.destroyed", handle=handle_of(ended), identity=held.identity)

    async def drain(self, seconds: float) -> None:
        """Wait for the redemptions that are under way, `seconds` at most."""
        await self._redeeming.drain(seconds)

    async def _redeem(self, held: HeldTokens, *, used: bool, end: EndLogin) -> HeldTokens | None:
        # A task of its own, for batches too: what the provider has redeemed is stored, even when the caller stops waiting for it.
        return await self._redeeming.run(object(), lambda: self._redeem_under_lease(held, used=used, end=end))

    async def _redeem_under_lease(self, held: HeldTokens, *, used: bool, end: EndLogin) -> HeldTokens | None:
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
    """Whether another caller has fetched an access token since; before its ID token is judged, only the refresh token is new."""
    return newest.term != first.term and (newest.access_token, newest.expires_at) != (first.access_token, first.expires_at)
