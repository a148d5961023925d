"""Gives handlers a usable access token of the logged-in user, refreshed when it has expired; knows no HTTP framework.

A refresh token may be good for one use only, and its second use may revoke everything. So of all requests that find an
expired token, in this process and in others, one redeems it, and the others take what that one stored.
"""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

import asyncio
import math
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from session_core.errors import (
    DiscoveryError,
    IdTokenError,
    LoginRequiredError,
    SessionGoneError,
    StoreUnavailableError,
    TokenExchangeError,
)
from session_core.oidc.id_token import validate_id_token
from session_core.oidc.single_flight import SingleFlight
from session_core.oidc.tokens import TokenSet
from session_core.writer import snapshot_of

if TYPE_CHECKING:
    from session_core.oidc.relying_party import RelyingParty
    from session_core.session import SessionHandle

__all__ = ("AccessTokens",)

_EARLY_MS: Final = 30_000
"""Refreshed this long before the expiry, so that the token is still good when it arrives somewhere."""
_POLL_SECONDS: Final = 0.05
_SAVE_ATTEMPTS: Final = 3
_GONE: Final = frozenset({"invalid_grant"})


class AccessTokens:
    """What a logged-in user's tokens are good for; injected as `tokens`."""

    def __init__(self, relying_party: RelyingParty) -> None:
        self._rp = relying_party
        self._flight: SingleFlight[TokenSet] = SingleFlight()
        self._held: dict[str, int] = {}
        timeout = relying_party.config.http_timeout_seconds
        self._lease_seconds = math.ceil(3 * timeout) + 2
        """Longer than a redemption can take (metadata, tokens, keys, each within the timeout, and the store). Whoever dies in one
        leaves the session stuck for no longer than this."""
        self._patience_seconds = timeout + 2
        """How long a request waits for somebody else's redemption."""

    async def access_token(self, session: SessionHandle[Any]) -> str:
        """Return an access token that is valid now.

        Raises `LoginRequiredError` when nobody is logged in, there is no token, or the provider has ended the login (the session
        is destroyed then); `TokenExchangeError` or `DiscoveryError` when it cannot be refreshed now (the session stays);
        `StoreUnavailableError`.
        """
        await session.load()
        tokens = self._rp.vault.open(session.vault, session.identity)
        if tokens is None or session.key is None:
            raise LoginRequiredError
        if self._is_fresh(tokens):
            return tokens.access_token
        if tokens.refresh_token is None:
            if self._is_valid(tokens):
                return tokens.access_token
            raise LoginRequiredError
        # Not cancelled with this request: a redeemed token that nobody stores is a lost login.
        return (await self._flight.run(session.key, lambda: self._renew(session, session.key or ""))).access_token

    async def userinfo(self, session: SessionHandle[Any]) -> dict[str, Any]:
        """Return the provider's claims about the logged-in user, fetched now (OpenID Connect Core 5.3).

        Raises what `access_token` raises; `LoginRequiredError` also when the provider refuses the token, and `TokenExchangeError`
        when it has no such endpoint, is out, or answers for somebody else. The session stays.
        """
        token = await self.access_token(session)
        if session.identity is None:
            raise LoginRequiredError
        try:
            claims = await self._rp.userinfo(token, session.identity.subject)
        except TokenExchangeError as error:
            if error.reason == "userinfo_unauthorized":
                raise LoginRequiredError from None
            raise
        except IdTokenError as error:
            raise TokenExchangeError(error.reason) from None
        if claims is None:
            raise TokenExchangeError("userinfo_not_offered")
        return claims

    async def _renew(self, session: SessionHandle[Any], key: str) -> TokenSet:
        """Return the newest tokens of the session: somebody else's when there are any, else those of a redemption."""
        deadline = asyncio.get_running_loop().time() + self._patience_seconds
        while True:
            # From the store: this request may have loaded the session before another one refreshed it.
            tokens = await self._stored(session, key)
            if self._is_fresh(tokens) or tokens.refresh_token is None:
                return tokens
            name = f"refresh-{sha256(b'refresh token' + tokens.refresh_token.encode()).hexdigest()}"
            if await self._lease(name):
                return await self._redeem(session, tokens, tokens.refresh_token)
            if asyncio.get_running_loop().time() > deadline:
                if self._is_valid(tokens):
                    return tokens
                raise TokenExchangeError("refresh_in_progress")
            await asyncio.sleep(_POLL_SECONDS)

    async def _lease(self, name: str) -> bool:
        """Whether this process may redeem the token now: the first of all that ask, until the lease runs out."""
        now = self._rp.clock.now()
        self._held = {held: until for held, until in self._held.items() if now < until}
        # An attempt of ours that failed at once leaves us the lease: the next request need not wait for its end.
        if name not in self._held:
            if not await self._rp.sessions.claim(name, seconds=self._lease_seconds):
                return False
            self._held[name] = now + self._lease_seconds * 1000
        return True

    async def _stored(self, session: SessionHandle[Any], key: str) -> TokenSet:
        stored = await self._rp.sessions.store.load(key)
        try:
            record = snapshot_of(stored).record if stored else None
        except msgspec.MsgspecError:
            record = None
        tokens = self._rp.vault.open(record.vault, record.identity) if record else None
        if record is None or tokens is None or not record.identity or not record.identity.is_same_user(session.identity):
            raise LoginRequiredError
        return tokens

    async def _redeem(self, session: SessionHandle[Any], old: TokenSet, refresh_token: str) -> TokenSet:
        try:
            metadata = await self._rp.discovery.metadata()
            answer = await self._rp.token_endpoint.refresh(metadata.token_endpoint, refresh_token=refresh_token)
            await self._check_same_user(session, answer.id_token, answer.access_token)
        except (TokenExchangeError, IdTokenError) as error:
            if isinstance(error, IdTokenError) or error.reason in _GONE:
                # The provider ended the login, or speaks of somebody else: this session must not go on.
                await self._rp.sessions.events.emit("login.failed", handle=session.handle, reason=f"refresh_{error.reason}")
                await session.destroy()
                raise LoginRequiredError from None
            return self._still_valid(old, error)
        except DiscoveryError as error:
            return self._still_valid(old, error)
        tokens = self._rp.token_set(answer, old)
        await self._store(session, tokens)
        return tokens

    async def _check_same_user(self, session: SessionHandle[Any], id_token: str | None, access_token: str) -> None:
        """Check a refreshed ID token (OpenID Connect Core 12.2): same issuer, audience and subject as at the login."""
        if id_token is None:
            return
        metadata = await self._rp.discovery.metadata()
        expected = self._rp.expected_id_token(metadata, access_token, None)
        valid = await validate_id_token(id_token, expected, self._rp.keys)
        if not valid.identity.is_same_user(session.identity):
            raise IdTokenError("sub_mismatch")

    async def _store(self, session: SessionHandle[Any], tokens: TokenSet) -> None:
        if session.identity is None:
            raise LoginRequiredError
        sealed = self._rp.vault.seal(tokens, session.identity)
        for attempt in range(_SAVE_ATTEMPTS):
            try:
                await session.store_vault(sealed)
            except SessionGoneError:
                raise LoginRequiredError from None
            except StoreUnavailableError:
                # The old refresh token is spent: giving up here costs the user a login.
                if attempt == _SAVE_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return

    def _still_valid(self, old: TokenSet, error: TokenExchangeError | DiscoveryError) -> TokenSet:
        # An outage of the provider ends nothing: the old token is used until it really expires.
        if self._is_valid(old):
            return old
        raise error

    def _is_fresh(self, tokens: TokenSet) -> bool:
        return tokens.expires_at is None or self._rp.clock.now() < tokens.expires_at - _EARLY_MS

    def _is_valid(self, tokens: TokenSet) -> bool:
        return tokens.expires_at is None or self._rp.clock.now() < tokens.expires_at
