"""Builds the session services of one application from its configuration; for every framework."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Generic, TypeVar

import msgspec

from session_core.asgi.exchange import Framework, SessionServices
from session_core.asgi.limits import RateLimits
from session_core.asgi.same_origin import SameOriginRule
from session_core.asgi.web import WebRequest
from session_core.asgi_types import Receive, Scope
from session_core.calls import Calls
from session_core.config import SessionConfig
from session_core.connections.impersonations import WatchedImpersonations
from session_core.connections.live import LiveConnections
from session_core.cookies import LONGEST_SECONDS
from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.events import Events
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.manager import SessionManager
from session_core.sessions.record import Device
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.sweeper import Sweeper
from session_core.stores.guarded import GuardedStore

__all__ = ("SessionApplication",)

D = TypeVar("D", bound=msgspec.Struct)

_HOUR: Final = 3600
_ANONYMOUS_SHARE: Final = 16
"""New anonymous sessions that a process reserves at once, so that nearly all begin without another store call."""


class SessionApplication(Generic[D]):
    """The store, the sessions in it, and what the requests of an application share.

    Raises `ConfigurationError` when the store cannot keep a promise that the configuration requires.
    """

    def __init__(self, config: SessionConfig[D], framework: Framework) -> None:
        self.config = config
        self._framework = framework
        self.events = Events(config.clock, tuple(config.on_event))
        self.calls = Calls(config.observers)
        self.store = GuardedStore(
            config.make_store(), timeout=config.store_timeout, on_outage=self._report_outage, calls=self.calls
        )
        self._refuse_impossible()
        marks = RevocationMarks(self.store, config.timeouts, config.clock)
        self.lifecycle: SessionLifecycle[D] = SessionLifecycle(
            store=self.store,
            codec=config.codec,
            timeouts=config.timeouts,
            clock=config.clock,
            events=self.events,
            limits=config.login_limits(self.store, self.events),
            marks=marks,
            patience=config.store_timeout,
            confirm_after=None if config.close_connections == "never" else config.poll_interval,
        )
        self.lifecycle.impersonation, self.lifecycle.may_impersonate = config.impersonation, config.may_impersonate
        self.limits = RateLimits(self.store, config.clock, self.events, exempt=config.exempt_networks)
        self.lifecycle.browser_keeps = LONGEST_SECONDS * 1000
        if config.max_anonymous_per_client:
            self.lifecycle.admit_anonymous = self._admit_anonymous
        self.sessions = SessionManager(self.store, config.timeouts, config.clock, self.events, marks, self.calls)
        if config.impersonation is not None:
            self.sessions.acting_ended = self.lifecycle.report_acting_ended
        self.connections = (
            None
            if config.close_connections == "never"
            else LiveConnections(
                self.store,
                config.clock,
                self.events,
                interval=config.poll_interval,
                push=config.close_connections == "push",
                disconnects=framework.disconnects,
            )
        )
        """Open WebSockets and streaming responses of this process; None when they are never closed."""
        self.impersonations: WatchedImpersonations | None = None
        """The impersonations that this process serves; None where there are none, or connections are never closed."""
        if config.impersonation is not None and self.connections is not None:
            self.impersonations = WatchedImpersonations(self.connections, self.lifecycle)
        self.services = SessionServices(config, self.lifecycle, framework, self.connections)
        self.same_origin = SameOriginRule(config, self.events, framework)

    def web_request(self, scope: Scope, receive: Receive) -> WebRequest:
        """Return a request for the library's own routes."""
        if self.config.device is not None:
            address = self.config.device(self._framework.connection_of(scope)).ip
        else:
            address = scope["client"][0] if scope.get("client") else ""
        return WebRequest(scope, receive, client_address=address, limits=self.limits, config=self.config)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the store while the application runs, and remove expired records where the store does not."""
        # A store that is down now may be up in a minute: the application starts, and answers 503 where it needs sessions.
        with suppress(StoreUnavailableError):
            await self.store.open()
        capabilities = self.store.capabilities
        for reason, lost in capabilities.lost_promises().items():
            await self.events.emit("store.weak", reason=reason, lost=lost)
        if self.config.secrets_generated:
            await self.events.emit("store.weak", reason="generated_secret")
        sweeper = Sweeper(self.sessions, interval=self.config.sweep_interval)
        if self.config.sweep_interval > 0 and capabilities.listable and not capabilities.native_expiry:
            sweeper.start()
        if self.impersonations is not None:
            self.lifecycle.on_acting = self.impersonations.enter
        try:
            yield
        finally:
            self.lifecycle.on_acting = None
            if self.impersonations is not None:
                self.impersonations.close()
            await sweeper.stop()
            self.services.under_way.close()
            if self.connections is not None:
                await self.connections.close()
            await self.store.close()

    def _refuse_impossible(self) -> None:
        if self.config.max_sessions_per_user and not self.store.capabilities.atomic:
            msg = "max_sessions_per_user needs a store with atomic writes; this one cannot keep the limit under concurrency"
            raise ConfigurationError(msg)
        if not self.store.capabilities.consistent and not self.config.accept_weak_store:
            msg = (
                "this store is eventually consistent: a session that has ended may be accepted elsewhere for a minute or more; "
                "use another one, or set accept_weak_store=True"
            )
            raise ConfigurationError(msg)

    async def _admit_anonymous(self, device: Device) -> None:
        limit = self.config.max_anonymous_per_client
        share = min(_ANONYMOUS_SHARE, max(1, limit // 100))
        await self.limits.take("anonymous_session", device.ip, limit=limit, seconds=_HOUR, share=share)

    async def _report_outage(self, reason: str) -> None:
        await self.events.emit("store.unavailable", reason=reason)
