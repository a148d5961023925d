"""OpenID Connect client for one provider: calls it and validates its responses. Independent of browsers."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import msgspec

from session_core.errors import DiscoveryError, IdTokenError
from session_core.identity import Identity
from session_core.oidc.config import OidcConfig
from session_core.oidc.http import OpHttp, tls_context
from session_core.oidc.login.transaction import LoginTransaction
from session_core.oidc.provider.client_authentication import ClientAuthentication
from session_core.oidc.provider.discovery import Discovery, FixedMetadata, MetadataSource, ProviderMetadata
from session_core.oidc.provider.oauth2 import OAuth2Provider
from session_core.oidc.provider.openid import SIGNING_ALGORITHMS, OidcProvider
from session_core.oidc.provider.registration import Registration
from session_core.oidc.provider.token_endpoint import TokenEndpoint, TokenResponse, fetch_userinfo
from session_core.oidc.provider.user_endpoint import UserEndpoint
from session_core.oidc.tokens.due_notes import DueNotes
from session_core.oidc.tokens.vault import TokenSet, TokenVault
from session_core.oidc.verify.claims import text
from session_core.oidc.verify.id_token import ExpectedIdToken, ValidIdToken, validate_id_token
from session_core.oidc.verify.jws import parse_jws
from session_core.oidc.verify.keys import KeyCache
from session_core.sessions.manager import SessionManager

__all__ = ("ProviderConnection",)


_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})


class ProviderConnection:
    """The connection to one provider: its metadata, keys and endpoints, and client authentication."""

    def __init__(self, config: OidcConfig, sessions: SessionManager, provider: Registration) -> None:
        self.config = config
        self.provider = provider
        self.sessions = sessions
        self.clock = sessions.clock
        # A client per provider: a hanging provider must not use up the connections to the others.
        self.http = OpHttp(
            timeout_seconds=config.http_timeout_seconds,
            proxy=config.proxy,
            tls=tls_context(config.ca_file) if config.ca_file is not None else None,
            transport=config.transport,
            calls=sessions.calls,
        )
        self.discovery = _metadata_of(provider, self.http, sessions)
        self.keys = KeyCache(self.http, self.clock, cooldown_seconds=config.jwks_cooldown_seconds)
        self.client = ClientAuthentication(provider, self.clock, timeout_seconds=config.http_timeout_seconds)
        self.token_endpoint = TokenEndpoint(provider, self.http, self.client)
        self.user_endpoint = UserEndpoint(provider, self.http) if isinstance(provider, OAuth2Provider) else None
        self.vault = TokenVault(config.sealing)
        self.notes = DueNotes(sessions.store, sessions.clock) if config.batch_refresh else None

    async def identify(
        self, answer: TokenResponse, metadata: ProviderMetadata, transaction: LoginTransaction
    ) -> tuple[Identity, dict[str, Any]]:
        """Return the identity and all claims of a login's tokens.

        Raises `DiscoveryError`, `TokenExchangeError` or `IdTokenError`.
        """
        if self.user_endpoint is not None:
            return await self.user_endpoint.user(answer.access_token)
        valid = await self._validate(answer, metadata, transaction)
        return valid.identity, await self._all_claims(answer, metadata, valid)

    def token_set(self, answer: TokenResponse, old: TokenSet | None = None) -> TokenSet:
        """Return the tokens to keep; those missing from a refresh are taken from `old`."""
        expires_at = None if answer.expires_in is None else self.clock.now() + answer.expires_in * 1000
        return TokenSet(
            access_token=answer.access_token,
            expires_at=expires_at,
            lifetime=answer.expires_in,
            refresh_token=answer.refresh_token or (old.refresh_token if old else None),
            id_token=answer.id_token or (old.id_token if old else None),
            scope=answer.scope or (old.scope if old else None),
            provider=self.provider.id,
            newer=old.newer if old else None,
        )

    def expected_id_token(self, metadata: ProviderMetadata, access_token: str, nonce: str | None) -> ExpectedIdToken:
        """Return the expected values of this provider's ID tokens. Raises `IdTokenError` for a provider without ID tokens."""
        provider = self.provider
        if not isinstance(provider, OidcProvider):
            raise IdTokenError("not_openid")
        return ExpectedIdToken(
            issuer_of=provider.issuer_of,
            several_issuers=bool(provider.tenants),
            subject_claim=provider.subject_claim,
            skew=provider.clock_tolerance_seconds,
            client_id=provider.client_id,
            algorithms=provider.accepted_algorithms(metadata.id_token_signing_alg_values_supported),
            jwks_uri=metadata.jwks_uri,
            now=self.clock.now() / 1000,
            nonce=None if provider.accept_id_token_replay_without_nonce else nonce,
            access_token=access_token,
        )

    async def userinfo(self, access_token: str, subject: str) -> dict[str, Any] | None:
        """Return the userinfo claims of `subject`, the `sub` of the login's ID token; None without such an endpoint.

        Raises `DiscoveryError`, `TokenExchangeError`, or `IdTokenError` when the claims belong to another user: tokens can be
        substituted, and only the subject binds the response to the login (OpenID Connect Core 5.3.2).
        """
        if self.user_endpoint is not None:
            identity, claims = await self.user_endpoint.user(access_token)
            if identity.subject != subject:
                raise IdTokenError("userinfo_sub_mismatch")
            return claims
        metadata = await self.discovery.metadata()
        url, provider = metadata.userinfo_endpoint, self.provider
        if url is None or not isinstance(provider, OidcProvider):
            return None
        claims = await fetch_userinfo(provider, metadata, url, access_token=access_token, http=self.http, keys=self.keys)
        if claims.get("sub") != subject:
            raise IdTokenError("userinfo_sub_mismatch")
        return claims

    def sub_of(self, identity: Identity, tokens: TokenSet) -> str:
        """Return the provider's `sub` of the user of these tokens. Raises `IdTokenError`."""
        if not isinstance(self.provider, OidcProvider) or self.provider.subject_claim == "sub":
            return identity.subject
        return text(parse_jws(tokens.id_token, algorithms=SIGNING_ALGORITHMS, error=IdTokenError).claims, "sub", IdTokenError)

    async def ask_clock(self) -> float | None:
        """Return by how many seconds our clock is ahead of the provider's, None without `Date`. Raises `DiscoveryError`."""
        metadata = await self.discovery.metadata()
        if not metadata.jwks_uri:
            return None
        response = await self.http.send("GET", metadata.jwks_uri, what="jwks", error=DiscoveryError)
        if response.status != HTTPStatus.OK:
            raise DiscoveryError("jwks_status")
        try:
            return self.clock.now() / 1000 - parsedate_to_datetime(response.date or "").timestamp()
        except ValueError:
            return None

    async def _validate(self, answer: TokenResponse, metadata: ProviderMetadata, transaction: LoginTransaction) -> ValidIdToken:
        expected = msgspec.structs.replace(
            self.expected_id_token(metadata, answer.access_token, transaction.nonce),
            max_age=transaction.max_age,
            acr_values=transaction.acr_values,
            authenticated_within=self._authenticated_within(transaction),
        )
        return await validate_id_token(answer.id_token, expected, self.keys)

    def _authenticated_within(self, transaction: LoginTransaction) -> float | None:
        """Return the seconds since the login began if the user must have authenticated since then, else None."""
        verified = isinstance(self.provider, OidcProvider) and self.provider.verify_reauthentication
        if not transaction.reauthenticate or not verified:
            return None
        return max(self.clock.now() - transaction.started_at, 0) / 1000

    async def _all_claims(self, answer: TokenResponse, metadata: ProviderMetadata, valid: ValidIdToken) -> dict[str, Any]:
        wanted = isinstance(self.provider, OidcProvider) and self.provider.use_userinfo
        if not wanted or metadata.userinfo_endpoint is None:
            return valid.claims
        userinfo = await self.userinfo(answer.access_token, valid.claims["sub"])
        # Claims of the validated ID token override those of userinfo; one that is null or empty counts as absent.
        stated = {name: value for name, value in valid.claims.items() if value not in _EMPTY}
        return {**valid.claims, **(userinfo or {}), **stated}


def _metadata_of(provider: Registration, http: OpHttp, sessions: SessionManager) -> MetadataSource:
    if isinstance(provider, OAuth2Provider):
        return FixedMetadata(provider.metadata())
    if not isinstance(provider, OidcProvider):
        raise TypeError(provider)
    given = provider.given_metadata()
    return FixedMetadata(given) if given is not None else Discovery(provider, http, sessions.clock)
