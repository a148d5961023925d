"""The verbs of a login and a logout, in the order of their checks; knows no HTTP framework.

start_login -> (browser, provider) -> receive_callback -> finish_login -> session.login
"""

# ruff: noqa: EM101 - what an OidcError is given is a reason slug, not a message
from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec

from session_core.errors import AuthorizationResponseError, DiscoveryError, IdTokenError
from session_core.identity import Identity
from session_core.oidc.authlib_client import authorization_url
from session_core.oidc.authorization_response import (
    AuthorizationResponse,
    check_code,
    read_authorization_response,
    read_login_request,
)
from session_core.oidc.discovery import Discovery, ProviderMetadata
from session_core.oidc.http import OpHttp
from session_core.oidc.id_token import ExpectedIdToken, ValidIdToken, validate_id_token
from session_core.oidc.keys import KeyCache
from session_core.oidc.provider_logout import ProviderLogout
from session_core.oidc.return_to import local_return_to
from session_core.oidc.secret_struct import SecretStruct
from session_core.oidc.token_endpoint import TokenAnswer, TokenEndpoint, fetch_userinfo
from session_core.oidc.tokens import TokenSet, TokenVault
from session_core.oidc.transaction import LIFETIME_SECONDS, LoginTransaction, LoginTransactions

if TYPE_CHECKING:
    from session_core.manager import SessionManager
    from session_core.oidc.config import OidcConfig

__all__ = ("Callback", "FinishedLogin", "RelyingParty")

_CLAIM_SECONDS: Final = LIFETIME_SECONDS + 60
_MAX_HINT_CHARS: Final = 6000
"""An ID token longer than this does not fit into a URL everywhere; the logout then goes without it."""


class Callback(SecretStruct, frozen=True):
    """A callback that belongs to a login which this browser started, and which nobody has finished before."""

    response: AuthorizationResponse
    transaction: LoginTransaction
    metadata: ProviderMetadata


class FinishedLogin(SecretStruct, frozen=True):
    """A login that passed every check and may become a session. `claims`: userinfo below, ID token above."""

    identity: Identity
    claims: dict[str, Any]
    tokens: TokenSet
    started_at: int
    return_to: str


class RelyingParty:
    """We, towards one provider."""

    def __init__(self, config: OidcConfig, sessions: SessionManager) -> None:
        self.config = config
        self.provider = config.provider
        self.sessions = sessions
        self.clock = sessions.clock
        self.http = OpHttp(timeout_seconds=config.http_timeout_seconds, transport=config.transport)
        self.discovery = Discovery(self.provider, self.http, self.clock)
        self.keys = KeyCache(self.http, self.clock, cooldown_seconds=config.jwks_cooldown_seconds)
        self.transactions = LoginTransactions(config.sealing, self.clock, public_url=config.public_url)
        self.token_endpoint = TokenEndpoint(self.provider, self.http)
        self.vault = TokenVault(config.sealing)
        self.provider_logout = ProviderLogout(self)

    async def start_login(self, query: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[str, list[bytes]]:
        """Return where to send the browser, and the Set-Cookie values of the new transaction.

        Raises `AuthorizationResponseError` for unfit parameters, `DiscoveryError` before anything is sent anywhere.
        """
        asked = read_login_request(query)
        if asked.issuer not in {None, self.provider.issuer}:
            raise AuthorizationResponseError("unknown_issuer")
        metadata = await self.discovery.metadata()
        state, transaction, cookies = self.transactions.start(
            headers,
            provider=self.provider.id,
            return_to=local_return_to(asked.next or self._local_target(asked.target_link_uri)),
            max_age=asked.max_age,
            acr_values=asked.acr_values,
        )
        optional = {
            "max_age": None if asked.max_age is None else str(asked.max_age),
            "acr_values": " ".join(asked.acr_values) or None,
            "prompt": asked.prompt,
            "login_hint": asked.login_hint,
        }
        url = authorization_url(
            self.provider,
            metadata.authorization_endpoint,
            redirect_uri=self.config.redirect_uri,
            state=state,
            nonce=transaction.nonce,
            code_verifier=transaction.code_verifier,
            params={name: value for name, value in optional.items() if value is not None},
        )
        return url, cookies

    async def receive_callback(self, query: bytes, headers: list[tuple[bytes, bytes]]) -> Callback:
        """Find the login that a callback belongs to, and use it up; the code has not been sent anywhere yet.

        Raises `AuthorizationResponseError` when this browser has no such login open, or not any more. Raises `DiscoveryError` and
        `StoreUnavailableError` with the login left open: reloading the page tries again.
        """
        response = read_authorization_response(query)
        transaction = self.transactions.find(headers, response.state)
        if transaction.provider != self.provider.id:
            raise AuthorizationResponseError("provider_mismatch")
        metadata = await self.discovery.metadata()
        # Single use, over all processes, and before the code goes anywhere: of fifty callbacks at once one goes on.
        if not await self.sessions.claim(f"login-{transaction.state_digest}", seconds=_CLAIM_SECONDS):
            raise AuthorizationResponseError("state_replayed")
        return Callback(response, transaction, metadata)

    async def finish_login(self, callback: Callback) -> FinishedLogin:
        """Redeem the code and check everything that comes back; nothing about any session changes here.

        Raises `AuthorizationResponseError`, `DiscoveryError`, `TokenExchangeError` or `IdTokenError`.
        """
        response, transaction, metadata = callback.response, callback.transaction, callback.metadata
        _check_response_issuer(response.issuer, metadata)
        if response.error is not None:
            raise AuthorizationResponseError(response.error)
        answer = await self.token_endpoint.redeem_code(
            metadata.token_endpoint,
            code=check_code(response.code),
            redirect_uri=self.config.redirect_uri,
            code_verifier=transaction.code_verifier,
        )
        valid = await self._validate(answer, metadata, transaction)
        claims = await self._all_claims(answer, metadata, valid)
        tokens = self.token_set(answer)
        return FinishedLogin(valid.identity, claims, tokens, transaction.started_at, transaction.return_to)

    def token_set(self, answer: TokenAnswer, old: TokenSet | None = None) -> TokenSet:
        """Return the tokens to keep; what a refresh did not bring anew stays from `old`."""
        expires_at = None if answer.expires_in is None else self.clock.now() + answer.expires_in * 1000
        return TokenSet(
            access_token=answer.access_token,
            expires_at=expires_at,
            refresh_token=answer.refresh_token or (old.refresh_token if old else None),
            id_token=answer.id_token or (old.id_token if old else None),
            scope=answer.scope or (old.scope if old else None),
            provider=self.provider.id,
        )

    def expected_id_token(self, metadata: ProviderMetadata, access_token: str, nonce: str | None) -> ExpectedIdToken:
        """Return what every ID token of this provider must be like."""
        return ExpectedIdToken(
            issuer=self.provider.issuer,
            client_id=self.provider.client_id,
            algorithms=self.provider.accepted_algorithms(metadata.id_token_signing_alg_values_supported),
            jwks_uri=metadata.jwks_uri,
            now=self.clock.now() / 1000,
            nonce=nonce,
            access_token=access_token,
        )

    async def userinfo(self, access_token: str, subject: str) -> dict[str, Any] | None:
        """Return the userinfo claims of `subject`; None when the provider has no such endpoint.

        Raises `DiscoveryError`, `TokenExchangeError`, or `IdTokenError` when the claims are somebody else's: tokens can be
        substituted, and only the subject ties the answer to the login (OpenID Connect Core 5.3.2).
        """
        metadata = await self.discovery.metadata()
        url = metadata.userinfo_endpoint
        if url is None:
            return None
        claims = await fetch_userinfo(self.provider, metadata, url, access_token=access_token, http=self.http, keys=self.keys)
        if claims.get("sub") != subject:
            raise IdTokenError("userinfo_sub_mismatch")
        return claims

    async def end_session_url(self, id_token: str | None) -> str | None:
        """Return where to log out at the provider (RP-Initiated Logout 1.0, 2); None when it has no such place or is out."""
        try:
            metadata = await self.discovery.metadata()
        except DiscoveryError:
            return None
        if metadata.end_session_endpoint is None:
            return None
        params = {
            "client_id": self.provider.client_id,
            "post_logout_redirect_uri": self.config.post_logout_redirect_uri,
            # Nothing here depends on its coming back: the local session has ended before.
            "state": secrets.token_urlsafe(16),
        }
        if id_token and len(id_token) <= _MAX_HINT_CHARS:
            params["id_token_hint"] = id_token
        separator = "&" if "?" in metadata.end_session_endpoint else "?"
        return f"{metadata.end_session_endpoint}{separator}{urlencode(params)}"

    async def close(self) -> None:
        """Close the connections to the provider."""
        await self.http.close()

    def _local_target(self, target_link_uri: str | None) -> str | None:
        """Return the path of a target of ours; whoever initiates a login may name any address (Core 4: no open redirector)."""
        own = self.config.public_url.rstrip("/")
        return target_link_uri.removeprefix(own) if target_link_uri and target_link_uri.startswith(f"{own}/") else None

    async def _validate(self, answer: TokenAnswer, metadata: ProviderMetadata, transaction: LoginTransaction) -> ValidIdToken:
        expected = msgspec.structs.replace(
            self.expected_id_token(metadata, answer.access_token, transaction.nonce),
            max_age=transaction.max_age,
            acr_values=transaction.acr_values,
        )
        return await validate_id_token(answer.id_token, expected, self.keys)

    async def _all_claims(self, answer: TokenAnswer, metadata: ProviderMetadata, valid: ValidIdToken) -> dict[str, Any]:
        if not self.provider.use_userinfo or metadata.userinfo_endpoint is None:
            return valid.claims
        userinfo = await self.userinfo(answer.access_token, valid.identity.subject)
        # What was signed and checked wins over what was only asked for.
        return {**(userinfo or {}), **valid.claims}


def _check_response_issuer(issuer: str | None, metadata: ProviderMetadata) -> None:
    """Check RFC 9207 `iss`: it keeps a code of one provider from being sent to another (mix-up, RFC 9700 4.4)."""
    if issuer is None:
        if metadata.authorization_response_iss_parameter_supported:
            raise AuthorizationResponseError("iss_missing")
    elif not hmac.compare_digest(issuer.encode(), metadata.issuer.encode()):
        raise AuthorizationResponseError("iss_mismatch")
