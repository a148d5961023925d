"""Puts the login into a Litestar application that has sessions: the routes, the token dependency, the shutdown."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

from litestar.di import NamedDependency, Provide
from litestar.plugins import InitPlugin

from session_core.errors import ConfigurationError
from session_core.oidc.access_tokens import AccessTokens
from session_core.oidc.relying_party import RelyingParty
from session_core.oidc.routes import oidc_router
from session_core.plugin import SessionPlugin
from session_core.same_origin import origin_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar import Litestar
    from litestar.config.app import AppConfig

    from session_core.oidc.config import OidcConfig

__all__ = ("OidcPlugin", "Tokens")

Tokens: TypeAlias = NamedDependency[AccessTokens]
"""What a handler asks for: `async def handler(session: Session[AppSession], tokens: Tokens)`. The parameter must be named
`tokens`."""


class OidcPlugin(InitPlugin):
    """Login with OpenID Connect, for an application that has a `SessionPlugin`.

    Adds `/auth/login`, `/auth/callback`, `/auth/logout`, `/auth/backchannel-logout` and `/auth/frontchannel-logout`.
    """

    def __init__(self, config: OidcConfig) -> None:
        self.config = config
        self.relying_party: RelyingParty
        """The verbs of login and logout; set when the application is built."""
        self.tokens: AccessTokens
        """Access tokens of sessions; set when the application is built, also injected as `tokens`."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add routes, dependency and lifespan. Raises `ConfigurationError` without fitting sessions."""
        sessions = next((plugin for plugin in app_config.plugins if isinstance(plugin, SessionPlugin)), None)
        if sessions is None:
            msg = "OidcPlugin needs a SessionPlugin in the same application: plugins=[SessionPlugin(...), OidcPlugin(...)]"
            raise ConfigurationError(msg)
        if origin_of(self.config.public_url) != origin_of(sessions.config.public_url):
            msg = "OidcConfig and SessionConfig must have the same public_url"
            raise ConfigurationError(msg)
        self.relying_party = RelyingParty(self.config, sessions.sessions)
        self.tokens = AccessTokens(self.relying_party)
        app_config.route_handlers.append(oidc_router(self.relying_party))
        app_config.dependencies.setdefault("tokens", Provide(lambda: self.tokens, sync_to_thread=False))
        app_config.lifespan.append(self._lifespan)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        del app
        try:
            yield
        finally:
            await self.relying_party.close()
