"""Redeems the refresh token of a session under a lease and stores the result. Independent of requests.

    redeem at the provider -> store the new refresh token -> check the ID token -> store the rest and give the lease back

Between the first step and the second the old refresh token may be spent and the new one exists only in this process. So both
steps are retried, and a client's disconnect does not cancel them. Each store step is made only if the store has nothing newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeAlias

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
from session_core.oidc.connection import ProviderConnection
from session_core.oidc.logout.revocation import Revocation
from session_core.oidc.provider.token_endpoint import RefreshResponse
from session_core.oidc.refresh.refreshed_id_token import check_refreshed_id_token, nonce_digest
from session_core.oidc.tokens.lease import HeldLease, freed
from session_core.oidc.tokens.stored import HeldTokens, SessionTokens
from session_core.oidc.tokens.vault import TokenSet

__all__ = ("EndLogin", "Redemption")

EndLogin: TypeAlias = Callable[["HeldTokens"], Awaitable[None]]
"""Ends the session of a login that the provider has ended."""

_SAVE_SECONDS: Final = 60.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LAST_PAUSE_SECONDS: Final = 2.0
_ENDED: Final = frozenset(
    {
        "invalid_grant", "login_required", "interaction_required", "consent_required", "account_selection_required",
        "mfa_required", "unmet_authentication_requirements",
    }
)  # fmt: skip
"""Error codes after which the user must log in at the provider again."""
_UNJUDGED: Final = frozenset({"unknown_key", "too_many_keys"})
"""Reasons that do not prove a forgery: the provider may sign with a key that it has not published yet."""


class Redemption:
    """Redeems refresh tokens of sessions, for requests and for batches."""

    def __init__(self, store: SessionTokens, revocation: Revocation) -> None:
        self._store = store
        self._revocation = revocation

    async def redeem(self, connection: ProviderConnection, lease: HeldLease, *, used: bool, end: EndLogin) -> HeldTokens | None:
        """Return the session with new tokens; None if newer ones were stored or the lease was lost: read the session again.

        `used`: the session is used now. Raises `LoginRequiredError` when the provider has ended the login or wants the user to
        log in again (`end` has been called), or the session ended meanwhile; `TokenExchangeError` or `DiscoveryError` when the
        provider is out or its response is invalid (a new refresh token is stored anyway); `StoreUnavailableError`
        when the new tokens could not be stored for a minute.
        """
        events, old = connection.sessions.events, lease.base.tokens
        handle = handle_of(lease.base.key)
        new: TokenSet | None = None
        async with lease.renewed():
            try:
                response = await self._ask(connection, lease, old)
                if response is None:
                    return None
                new = _with_refresh_token(old, response.refresh_token, lease)
                # Stored first: the old refresh token may be spent, and validating the rest may take seconds, or fail.
                if new.refresh_token != old.refresh_token and await self._save(lease, new, used=used, release=False) is None:
                    return None
                new = await self._judged(connection, lease, response, new)
                saved = await self._save(lease, new, used=used, release=True)
            except SessionGoneError:
                # Logged out meanwhile: these tokens are no longer needed.
                await self._revocation.revoke(connection, new, handle=handle)
                raise LoginRequiredError from None
            except (TokenExchangeError, DiscoveryError, IdTokenError) as error:
                if error.reason in _ENDED or (isinstance(error, IdTokenError) and error.reason not in _UNJUDGED):
                    if await self._is_newer(lease, old, error):
                        await lease.release()
                        return None
                    await self._end(connection, lease, new, error, end)
                    raise LoginRequiredError from None
                await lease.release()
                await events.emit("tokens.refresh_failed", handle=handle, reason=error.reason)
                raise (TokenExchangeError(error.reason) if isinstance(error, IdTokenError) else error) from None
        if saved is not None:
            await events.emit("tokens.refreshed", handle=handle_of(saved.key), identity=saved.identity)
        return saved

    async def _ask(self, connection: ProviderConnection, lease: HeldLease, old: TokenSet) -> RefreshResponse | None:
        """Return the provider's response; None if the lease was lost."""
        metadata = await connection.discovery.metadata()
        # Checked right before the token is spent.
        if old.refresh_token is None or not await lease.confirm():
            return None
        return await connection.token_endpoint.refresh(metadata.token_endpoint, refresh_token=old.refresh_token)

    async def _judged(
        self, connection: ProviderConnection, lease: HeldLease, response: RefreshResponse, kept: TokenSet
    ) -> TokenSet:
        """Return the validated tokens of a response, without an ID token that must not be kept.

        Raises `TokenExchangeError`, or `IdTokenError` and `DiscoveryError` as `check_refreshed_id_token` does: without a
        validated ID token the access token is not used, and the next attempt fetches others.
        """
        answer, base = response.tokens(), lease.base
        if answer.id_token is not None:
            metadata = await connection.discovery.metadata()
            expected = connection.expected_id_token(metadata, answer.access_token, None)
            reason = await check_refreshed_id_token(answer.id_token, expected, connection.keys, login=base.identity, old=kept)
            if reason is not None:
                events = connection.sessions.events
                await events.emit("tokens.refresh_failed", handle=handle_of(base.key), reason=f"id_token_{reason}")
                answer = msgspec.structs.replace(answer, id_token=None)
        new = connection.token_set(answer, kept)
        return msgspec.structs.replace(new, family=kept.family, term=kept.term, nonce=kept.nonce)

    async def _is_newer(self, lease: HeldLease, old: TokenSet, error: OidcError) -> bool:
        """Whether newer tokens are stored: then the token was refused because another process had redeemed it."""
        if error.reason not in _ENDED:
            return False
        newest = await self._newest(lease)
        return newest is not None and newest.tokens.term != old.term

    async def _end(
        self, connection: ProviderConnection, lease: HeldLease, fresh: TokenSet | None, error: OidcError, end: EndLogin
    ) -> None:
        """End a login that the provider has ended, or that got tokens of another login; revoke the new tokens."""
        handle = handle_of(lease.base.key)
        await connection.sessions.events.emit("login.failed", handle=handle, reason=f"refresh_{error.reason}")
        newest = await self._newest(lease)
        if newest is not None:
            await end(newest)
        await self._revocation.revoke(connection, fresh, handle=handle)

    async def _newest(self, lease: HeldLease) -> HeldTokens | None:
        found = await self._store.load(lease.base.key) or await self._store.find_moved(lease.base)
        return found if found is not None and found.tokens.family == lease.family else None

    async def _save(self, lease: HeldLease, new: TokenSet, *, used: bool, release: bool) -> HeldTokens | None:
        """Store tokens and return the session, or None if newer ones are stored. `release` also gives the lease back.

        Retried for a minute: the old refresh token is spent, so otherwise the user must log in again.
        """

        def renewed(newest: TokenSet) -> TokenSet | None:
            if newest.family != lease.family or newest.term > lease.term:
                return None
            # Keep a lease that another holder has taken over; that holder will store newer tokens.
            held = newest.lease
            return msgspec.structs.replace(new, lease=freed(held) if release and held.holder == lease.holder else held)

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
                lease.base = saved
                return saved if stored else None


def _with_refresh_token(old: TokenSet, refresh_token: str | None, lease: HeldLease) -> TokenSet:
    """Return the current tokens with the refresh token of a response."""
    return msgspec.structs.replace(
        old,
        refresh_token=refresh_token or old.refresh_token,
        family=lease.family,
        term=lease.term,
        # The nonce of the login's own ID token, which a refreshed one may replace.
        nonce=nonce_digest(old),
    )
