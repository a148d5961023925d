"""Adds the login to a Litestar application with sessions: routes, token dependency, shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import NamedDependency, Provide
from litestar.plugins import InitPlugin

from session_core.errors import ConfigurationError, OidcError
from session_core.litestar.online import OnlineCheck
from session_core.litestar.plugin import SessionPlugin
from session_core.oidc.config import OidcConfig
from session_core.oidc.refresh.access_tokens import AccessTokens
from session_core.oidc.refresh.batch_refresh import BatchResult, RefreshBatch
from session_core.oidc.relying_parties import RelyingParties, check_sessions
from session_core.oidc.relying_party import RelyingParty
from session_core.oidc.routes.refresh import batch_route
from session_core.oidc.routes.router import oidc_router

__all__ = ("OidcPlugin", "Tokens")

Tokens: TypeAlias = NamedDependency[AccessTokens]
"""Annotates the parameter of a handler: `async def handler(session: Session[AppSession], tokens: Tokens)`. It must be named
`tokens`."""

_CLOCK_SECONDS: Final = 10
"""Seconds of clock difference to report: tokens are refused from a minute on."""


class OidcPlugin(InitPlugin):
    """Login with OpenID Connect, for an application that has a `SessionPlugin`.

    Adds `/auth/login`, `/auth/callback`, `/auth/logout`, `/auth/backchannel-logout` and `/auth/frontchannel-logout`; for a
    provider whose id is not `default`, all but the logout also with its id appended.
    """

    def __init__(self, config: OidcConfig) -> None:
        self.config = config
        self.relying_parties: RelyingParties
        """Login and logout for each provider; set when the application is built."""
        self.tokens: AccessTokens
        """Access tokens of sessions; set when the application is built, also injected as `tokens`."""
        self._batch: RefreshBatch | None = None

    @property
    def relying_party(self) -> RelyingParty:
        """Login and logout at the first provider."""
        return self.relying_parties.first

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add routes, dependency and lifespan. Raises `ConfigurationError` without matching sessions."""
        sessions = next((plugin for plugin in app_config.plugins if isinstance(plugin, SessionPlugin)), None)
        if sessions is None:
            msg = "OidcPlugin needs a SessionPlugin in the same application: plugins=[SessionPlugin(...), OidcPlugin(...)]"
            raise ConfigurationError(msg)
        check_sessions("OidcPlugin", self.config, sessions.application)
        self.relying_parties = RelyingParties(self.config, sessions.sessions)
        self.tokens = AccessTokens(self.relying_parties)
        app_config.route_handlers.append(oidc_router(self.relying_parties, sessions.application))
        if self.config.batch_refresh is not None and self.relying_party.connection.notes is not None:
            self._batch = RefreshBatch(
                self.relying_parties, self.tokens.refresh, self.relying_party.connection.notes, self.config.batch_refresh
            )
            if self.config.batch_refresh.key is not None:
                app_config.route_handlers.append(batch_route(self._batch, sessions.sessions, self.config.batch_refresh.key))
        app_config.dependencies.setdefault("tokens", Provide(lambda: self.tokens, sync_to_thread=False))
        app_config.lifespan.append(self._lifespan)
        return app_config

    async def refresh_tokens(
        self, *, horizon_seconds: int | None = None, concurrency: int | None = None, dry_run: bool = False
    ) -> BatchResult:
        """Refresh the tokens of the sessions that are due, outside of a running application (see `RefreshBatch.run`).

        Raises `ConfigurationError` without `OidcConfig(batch_refresh=...)`.
        """
        if self._batch is None:
            msg = "due sessions are not recorded: set OidcConfig(batch_refresh=BatchRefresh())"
            raise ConfigurationError(msg)
        try:
            return await self._batch.run(horizon_seconds=horizon_seconds, concurrency=concurrency, dry_run=dry_run)
        finally:
            await self.tokens.close()
            await self.relying_parties.close()

    async def check_online(self) -> list[OnlineCheck]:
        """Fetch metadata, keys and time of each provider, outside of a running application."""
        results: list[OnlineCheck] = []
        for party in self.relying_parties:
            what = f"provider {party.provider.issuer}"
            try:
                ahead = await party.connection.ask_clock()
            except OidcError as error:
                results.append(OnlineCheck(what, good=False, detail=error.reason))
                continue
            results.append(OnlineCheck(what, good=True))
            if ahead is not None:
                detail = f"{ahead:+.0f} s from {party.provider.issuer}"
                results.append(OnlineCheck("clock", good=abs(ahead) <= _CLOCK_SECONDS, detail=detail))
        await self.relying_parties.close()
        return results

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        del app
        sessions = self.relying_party.sessions
        if not sessions.store.capabilities.atomic:
            lost = "two processes may both use one login callback, logout token or refresh token"
            await sessions.events.emit("store.weak", reason="no_single_use", lost=lost)
        try:
            yield
        finally:
            await self.tokens.close()
            await self.relying_parties.close()
