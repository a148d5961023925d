"""Gives handlers a usable access token of the logged-in user, refreshed when it has expired; independent of HTTP frameworks.

A refresh token may be valid for one use, and a second use may revoke everything. So of all requests that find an expired token,
in all processes, one redeems it and the others use its result.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from session_core.errors import (
    DiscoveryError,
    IdTokenError,
    ImpersonationForbiddenError,
    LoginRequiredError,
    SessionConflictError,
    SessionGoneError,
    StoreUnavailableError,
    TokenExchangeError,
)
from session_core.oidc.refresh.refresh import TokenRefresh
from session_core.oidc.refresh.token_auth import TokenAuth
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.single_flight import SingleFlight
from session_core.oidc.tokens.stored import HeldTokens
from session_core.oidc.tokens.vault import TokenSet
from session_core.sessions.handle import SessionHandle

__all__ = ("AccessTokens",)

_EARLY_SECONDS: Final = 30
"""Seconds before the expiry at which a token is refreshed, so that it is still valid when it arrives; short-lived tokens are
refreshed in the last quarter of their life."""
_DRAIN_SECONDS: Final = 5.0
"""Seconds to wait for running refreshes when the process stops; a supervisor kills it after ten or more."""
_ARRIVAL_SECONDS: Final = 5
"""A token with less than these seconds left is not returned during a refresh."""


class AccessTokens:
    """Access tokens and userinfo of the logged-in user; injected as `tokens`."""

    def __init__(self, relying_parties: RelyingParties) -> None:
        self._rps = relying_parties
        self.refresh = TokenRefresh(relying_parties, relying_parties.first.connection.notes)
        """Refreshes tokens, for requests and for batches."""
        self._flight: SingleFlight[HeldTokens] = SingleFlight()
        timeout = relying_parties.config.http_timeout_seconds
        self._patience_seconds = self.refresh.lease_seconds + timeout
        """How long a request waits: for the lease of a dead holder, and then for a redemption."""

    async def access_token(self, session: SessionHandle[Any], *, refused: str | None = None) -> str:
        """Return an access token that is valid now.

        A token that is about to expire is returned while it is valid, and refreshed in the background. `refused` is a token that
        a resource server rejected although it should be valid (RFC 6750 3.1, `invalid_token`): a new one is fetched.

        Raises `LoginRequiredError` when no user is logged in, there is no token, or the provider has ended the login (the session
        is destroyed then); `TokenExchangeError` or `DiscoveryError` when it cannot be refreshed now (the session stays);
        `StoreUnavailableError`; `ImpersonationForbiddenError` while an administrator acts as the user.
        """
        await session.load()
        if session.actor is not None:  # those of the administrator are not the user's
            raise ImpersonationForbiddenError
        sealed = session.vault
        tokens = self._rps.vault.open(sealed, session.identity)
        if tokens is None or session.key is None:
            raise LoginRequiredError
        if self._is_good(tokens, _EARLY_SECONDS, refused):
            if self._rps.vault.needs_reseal(sealed):
                await self._reseal(session.key)
            return tokens.access_token
        if tokens.refresh_token is None:
            if self._is_good(tokens, 0, refused):
                return tokens.access_token
            raise LoginRequiredError
        lasts = self._is_good(tokens, _ARRIVAL_SECONDS, refused)
        renewal = self._begin_renewal(session, session.key, refused, waiting=not lasts)
        return tokens.access_token if lasts else await self._renewed(renewal, tokens, refused)

    def auth(self, session: SessionHandle[Any], origin: str) -> TokenAuth:
        """Return `auth` for an `httpx2.AsyncClient`: a fresh token for this origin, and a new one once after a 401."""
        return TokenAuth(self, session, origin)

    async def userinfo(self, session: SessionHandle[Any]) -> dict[str, Any]:
        """Return the provider's claims about the logged-in user, fetched now (OpenID Connect Core 5.3).

        A refused token whose lifetime the provider has not stated is refreshed once. Raises what `access_token` raises;
        `LoginRequiredError` also when the provider refuses the token, and `TokenExchangeError` when there is no such endpoint, no
        response, or one for another user. The session stays.
        """
        token = await self.access_token(session)
        tokens = self._rps.vault.open(session.vault, session.identity)
        if session.identity is None or tokens is None:
            raise LoginRequiredError
        connection = self._rps.of(tokens.provider, session.identity).connection
        subject = connection.sub_of(session.identity, tokens)
        try:
            try:
                claims = await connection.userinfo(token, subject)
            except TokenExchangeError as error:
                if error.reason != "userinfo_unauthorized" or tokens.lifetime is not None or tokens.refresh_token is None:
                    raise
                claims = await connection.userinfo(await self.access_token(session, refused=token), subject)
        except TokenExchangeError as error:
            if error.reason == "userinfo_unauthorized":
                raise LoginRequiredError from None
            raise
        except IdTokenError as error:
            raise TokenExchangeError(error.reason) from None
        if claims is None:
            raise TokenExchangeError("userinfo_not_offered")
        return claims

    async def close(self) -> None:
        """Wait a while for running refreshes and revocations: a process that stops must not lose a login."""
        until = time.monotonic() + _DRAIN_SECONDS
        for drain in (self._flight.drain, self.refresh.drain, self.refresh.revocation.close):
            await drain(max(0.0, until - time.monotonic()))

    async def _renewed(self, renewal: asyncio.Task[HeldTokens], old: TokenSet, refused: str | None) -> str:
        try:
            async with asyncio.timeout(self._patience_seconds):
                # Not cancelled with this request: if a redeemed token is not stored, the login is lost.
                new = (await asyncio.shield(renewal)).tokens
        except (TokenExchangeError, DiscoveryError):
            # During an outage of the provider the old token is used until it expires.
            if self._is_good(old, 0, refused):
                return old.access_token
            raise
        except TimeoutError:
            raise TokenExchangeError("refresh_in_progress") from None
        if not self._is_good(new, 0, refused) and new.refresh_token is None:
            raise LoginRequiredError
        return new.access_token

    def _begin_renewal(
        self, session: SessionHandle[Any], key: str, refused: str | None, *, waiting: bool
    ) -> asyncio.Task[HeldTokens]:
        identity = session.identity

        async def end(held: HeldTokens) -> None:
            # End it by the handle only while its request waits here: then the cookie is deleted as well.
            if waiting and session.key == key:
                await session.destroy()
            else:
                await self.refresh.end(held)

        async def renew() -> HeldTokens:
            return await self.refresh.renew(
                key,
                identity,
                is_new=lambda tokens: self._is_good(tokens, _EARLY_SECONDS, refused),
                is_usable=lambda tokens: self._is_good(tokens, _ARRIVAL_SECONDS, refused),
                end=end,
            )

        # A request that refused a token must not join a run that may return it.
        return self._flight.begin((key, refused), renew)

    async def _reseal(self, key: str) -> None:
        """Seal the tokens again under the first key, so that older keys can be retired; a failure is retried at the next use."""
        try:
            held = await self.refresh.store.load(key)
            if held is not None and self._rps.vault.needs_reseal(held.record.vault):
                await self.refresh.store.change(held, lambda tokens: tokens, used=True)
        except (StoreUnavailableError, SessionGoneError, SessionConflictError):
            return

    def _is_good(self, tokens: TokenSet, margin: int, refused: str | None) -> bool:
        """Whether the access token is accepted and lives for `margin` seconds more."""
        if refused is not None and tokens.access_token == refused:
            return False
        if tokens.expires_at is None:
            return True
        if tokens.lifetime is not None:
            margin = min(margin, tokens.lifetime // 4)
        return self._rps.clock.now() < tokens.expires_at - margin * 1000
