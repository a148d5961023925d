"""The relying parties of all providers: finds the one of a login, a session or a message. Validates nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from session_core.asgi.application import SessionApplication
from session_core.errors import ConfigurationError, LoginRequiredError, LogoutTokenError
from session_core.identity import Identity
from session_core.oidc.config import OidcConfig
from session_core.oidc.logout.revocation import Revocation
from session_core.oidc.native_logins import NativeLogins
from session_core.oidc.provider.openid import SIGNING_ALGORITHMS
from session_core.oidc.relying_party import RelyingParty
from session_core.oidc.tokens.vault import TokenVault
from session_core.oidc.verify.jws import parse_jws
from session_core.sessions.manager import SessionManager

__all__ = ("RelyingParties", "check_sessions")


class RelyingParties:
    """One `RelyingParty` for each provider; in the order of the configuration."""

    def __init__(self, config: OidcConfig, sessions: SessionManager) -> None:
        self.config = config
        self.base = config.base
        self.sessions = sessions
        self.clock = sessions.clock
        self.revocation = Revocation()
        """Revokes tokens that are no longer needed."""
        if config.native_clients:
            sessions.marks.include_users()
        for options in config.login_options.values():
            if options.timeouts is not None:
                sessions.marks.cover(options.timeouts)
        self.native = NativeLogins(config, sessions)
        """The logins of native clients."""
        self._by_id = {provider.id: RelyingParty(config, sessions, provider) for provider in config.providers}
        self.first = next(iter(self._by_id.values()))
        self.link_params = frozenset(name for provider in config.providers for name in provider.link_params)
        """Further parameters that a provider accepts from login links."""

    @property
    def vault(self) -> TokenVault:
        """Seals and opens the tokens of all providers."""
        return self.first.connection.vault

    def __iter__(self) -> Iterator[RelyingParty]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, provider_id: str, identity: Identity) -> RelyingParty:
        """Return the relying party of the provider that issued a session's tokens (see `of_session`).

        Raises `LoginRequiredError` if it is no longer configured: its tokens are then never sent.
        """
        found = self.of_session(provider_id, identity)
        if found is None:
            raise LoginRequiredError
        return found

    def find(self, provider_id: str) -> RelyingParty | None:
        """Return the relying party of the provider with that id, or None."""
        return self._by_id.get(provider_id)

    def by_issuer(self, issuer: str | None) -> RelyingParty | None:
        """Return the relying party of that issuer, compared character for character, or None."""
        return None if issuer is None else next((each for each in self if each.provider.is_issuer(issuer)), None)

    def by_logout_token(self, token: str) -> RelyingParty:
        """Return the relying party that the token's `iss` names; the token is not verified yet.

        Raises `LogoutTokenError`.
        """
        if len(self) == 1:
            return self.first
        issuer = parse_jws(token, algorithms=SIGNING_ALGORITHMS, error=LogoutTokenError).claims.get("iss")
        found = self.by_issuer(issuer) if isinstance(issuer, str) else None
        if found is None:
            reason = "iss_mismatch"
            raise LogoutTokenError(reason)
        return found

    def of_session(self, provider_id: str | None, identity: Identity) -> RelyingParty | None:
        """Return the relying party of a session's login: by its tokens or, without any, by the user's issuer.

        The issuer decides: after a change of configuration the same id may name another provider, which must not get the tokens.
        """
        found = self.find(provider_id) if provider_id is not None else None
        if found is not None and found.provider.is_issuer(identity.issuer):
            return found
        return self.by_issuer(identity.issuer)

    async def close(self) -> None:
        """Close the connections to all providers."""
        for each in self:
            await each.connection.http.close()


def check_sessions(needs: str, config: OidcConfig, application: SessionApplication[Any]) -> None:
    """Raise `ConfigurationError` for an application whose sessions cannot carry this login; `needs` is what is used to add it."""
    if config.base != application.config.base:
        msg = "OidcConfig and SessionConfig must have the same public_url"
        raise ConfigurationError(msg)
    if not application.store.capabilities.atomic and not application.config.accept_weak_store:
        msg = (
            f"{needs} needs a store whose claims are atomic: on this one two processes could both use one login callback, logout "
            "token or refresh token; use another store, or set SessionConfig(accept_weak_store=True)"
        )
        raise ConfigurationError(msg)
    if config.native_clients and not application.config.bearer:
        msg = "OidcConfig(native_clients=...) needs SessionConfig(bearer=True): native clients get a bearer token"
        raise ConfigurationError(msg)
