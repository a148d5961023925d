"""Redeems the refresh token of a session under a lease and stores what comes back; knows no request.

    redeem at the provider -> check the ID token -> store, only if nothing newer is there -> give the lease back

Between the first step and the third the old refresh token may be spent and the new one is only here. So nothing in between
gives up early, and nobody's disconnect stops it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from session_core.errors import (
    DiscoveryError,
    IdTokenError,
    LoginRequiredError,
    OidcError,
    SessionConflictError,
    SessionGoneError,
    StoreUnavailableError,
    TokenExchangeError,
)
from session_core.ids import handle_of
from session_core.oidc.provider.openid import OidcProvider
from session_core.oidc.refresh.refreshed_id_token import check_refreshed_id_token, nonce_digest
from session_core.oidc.tokens.lease import freed

if TYPE_CHECKING:
    from session_core.oidc.logout.revocation import Revocation
    from session_core.oidc.provider.token_endpoint import TokenAnswer
    from session_core.oidc.relying_party import RelyingParty
    from session_core.oidc.tokens.lease import HeldLease
    from session_core.oidc.tokens.stored import HeldTokens, SessionTokens
    from session_core.oidc.tokens.vault import TokenSet

__all__ = ("EndLogin", "Redemption")

EndLogin: TypeAlias = Callable[["HeldTokens"], Awaitable[None]]
"""Ends the session of a login that the provider has ended."""

_SAVE_SECONDS: Final = 60.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LAST_PAUSE_SECONDS: Final = 2.0
_GONE: Final = "invalid_grant"
_UNJUDGED: Final = "unknown_key"


class Redemption:
    """Redeems refresh tokens of sessions, for requests and for batches."""

    def __init__(self, store: SessionTokens, revocation: Revocation) -> None:
        self._store = store
        self._revocation = revocation

    async def redeem(self, relying_party: RelyingParty, lease: HeldLease, *, used: bool, end: EndLogin) -> HeldTokens | None:
        """Return the session with new tokens; None when somebody else has stored newer ones or taken the lease: look again.

        `used`: somebody uses the session now. Raises `LoginRequiredError` when the provider has ended the login (`end` has been
        called) or the session ended meanwhile; `TokenExchangeError` or `DiscoveryError` when the provider is out;
        `StoreUnavailableError` when the new tokens could not be stored for a minute.
        """
        events, old = relying_party.sessions.events, lease.base.tokens
        async with lease.renewed():
            try:
                brought = await self._ask(relying_party, lease, old)
            except (TokenExchangeError, DiscoveryError, IdTokenError) as error:
                if isinstance(error, IdTokenError) or error.reason == _GONE:
                    await self._end_unless_newer(relying_party, lease, old, error, end)
                    return None
                await lease.release()
                await events.emit("tokens.refresh_failed", handle=handle_of(lease.base.key), reason=error.reason)
                raise
            if brought is None:
                return None
            new, doubt = brought
            try:
                saved, stored = await self._save(lease, new, used=used)
            except SessionGoneError:
                # Logged out while the provider answered: nobody holds these tokens any more.
                await self._revocation.revoke(relying_party, new, handle=handle_of(lease.base.key))
                raise LoginRequiredError from None
        if not stored:
            return None
        if doubt is not None:
            await events.emit("tokens.refresh_failed", handle=handle_of(saved.key), reason=doubt.reason)
            raise doubt
        await events.emit("tokens.refreshed", handle=handle_of(saved.key), identity=saved.identity)
        return saved

    async def _ask(
        self, relying_party: RelyingParty, lease: HeldLease, old: TokenSet
    ) -> tuple[TokenSet, TokenExchangeError | DiscoveryError | None] | None:
        """Return the tokens to store, and an error when they are not good for use yet; None when the lease is lost."""
        metadata = await relying_party.discovery.metadata()
        # The last moment before the token is spent.
        if old.refresh_token is None or not await lease.confirm():
            return None
        answer = await relying_party.token_endpoint.refresh(metadata.token_endpoint, refresh_token=old.refresh_token)
        doubt: TokenExchangeError | DiscoveryError | None = None
        try:
            answer = await self._checked(relying_party, lease, answer)
        except DiscoveryError as error:
            doubt = error
        except IdTokenError as error:
            if error.reason != _UNJUDGED:
                raise
            doubt = TokenExchangeError(error.reason)
        # While the ID token cannot be judged the access token is not used. But the old refresh token may be spent: the new one
        # is kept, and with it the next attempt brings another ID token.
        if doubt is None:
            new = relying_party.token_set(answer, old)
        else:
            new = msgspec.structs.replace(old, refresh_token=answer.refresh_token or old.refresh_token)
        return msgspec.structs.replace(new, family=lease.family, term=lease.term, nonce=nonce_digest(old)), doubt

    async def _checked(self, relying_party: RelyingParty, lease: HeldLease, answer: TokenAnswer) -> TokenAnswer:
        """Return the answer without an ID token that must not be kept."""
        if answer.id_token is None or not isinstance(relying_party.provider, OidcProvider):
            return msgspec.structs.replace(answer, id_token=None)
        metadata = await relying_party.discovery.metadata()
        expected = relying_party.expected_id_token(metadata, answer.access_token, None)
        base = lease.base
        reason = await check_refreshed_id_token(
            answer.id_token, expected, relying_party.keys, login=base.identity, old=base.tokens
        )
        if reason is None:
            return answer
        events = relying_party.sessions.events
        await events.emit("tokens.refresh_failed", handle=handle_of(base.key), reason=f"id_token_{reason}")
        return msgspec.structs.replace(answer, id_token=None)

    async def _end_unless_newer(
        self, relying_party: RelyingParty, lease: HeldLease, old: TokenSet, error: OidcError, end: EndLogin
    ) -> None:
        """End a login that the provider has ended, or that it says is somebody else's, and raise `LoginRequiredError`.

        Not when newer tokens are there: then the one that we sent was refused because somebody had redeemed it before us.
        """
        newest = await self._newest(lease)
        if newest is not None and error.reason == _GONE and newest.tokens.term != old.term:
            await lease.release()
            return
        events = relying_party.sessions.events
        await events.emit("login.failed", handle=handle_of(lease.base.key), reason=f"refresh_{error.reason}")
        if newest is not None:
            await end(newest)
        raise LoginRequiredError from None

    async def _newest(self, lease: HeldLease) -> HeldTokens | None:
        found = await self._store.load(lease.base.key) or await self._store.find_moved(lease.base)
        return found if found is not None and found.tokens.family == lease.family else None

    async def _save(self, lease: HeldLease, new: TokenSet, *, used: bool) -> tuple[HeldTokens, bool]:
        """Store the new tokens unless newer ones are there; return what is stored, and whether it is ours.

        Tried for a minute: the old refresh token is spent, so giving up costs the user a login.
        """

        def renewed(newest: TokenSet) -> TokenSet | None:
            if newest.family != lease.family or newest.term >= lease.term:
                return None
            # A lease that was taken over stays its new holder's, who will store something newer still.
            held = newest.lease
            return msgspec.structs.replace(new, lease=freed(held) if held.holder == lease.holder else held)

        deadline, pause = monotonic() + _SAVE_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            try:
                saved, stored = await self._store.change(lease.base, renewed, used=used)
            except (StoreUnavailableError, SessionConflictError):
                if monotonic() > deadline:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE_SECONDS)
            else:
                # An earlier attempt may have been made though its answer was lost.
                return saved, stored or (saved.tokens.family == lease.family and saved.tokens.term == lease.term)
