"""Puts sessions into a Litestar application: injection, middleware on the routes that use them, errors, start and stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions.responses import create_exception_response
from litestar.plugins import CLIPlugin, InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types import Message, Receive, Scope, Send

from session_core.asgi.application import SessionApplication
from session_core.asgi.exchange import SessionServices
from session_core.errors import ConfigurationError, SessionCoreError
from session_core.litestar.access import KeepsSessions, missing_plugin
from session_core.litestar.checks import check_handler
from session_core.litestar.dependency import provide_session
from session_core.litestar.idioms import ConnectionIdioms
from session_core.litestar.internals import inject_directly
from session_core.litestar.middleware import (
    LITESTAR_DISCONNECTS,
    LitestarSessionMiddleware,
    SameOriginMiddleware,
    vary_on_cookie,
)
from session_core.litestar.online import OnlineCheck
from session_core.litestar.openapi import describe, describe_application
from session_core.litestar.outer_layers import keep_out_of_cache, may_ask_outside
from session_core.litestar.outside import TOUCH, OutsideSessions
from session_core.litestar.posture import cors_disagreements
from session_core.litestar.problem import error_response
from session_core.litestar.routes import forbid_cache, is_state_changing, knows_layers, resolved, uses_session

if TYPE_CHECKING:
    from click import Group
    from litestar import Litestar, Request
    from litestar.config.app import AppConfig
    from litestar.config.cors import CORSConfig
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.response import Response

    from session_core.config import SessionConfig

__all__ = ("SessionPlugin", "plugin_of")

_SERVER_ERROR = 500
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")


class SessionPlugin(InitPlugin, ReceiveRoutePlugin, CLIPlugin, KeepsSessions):
    """Sessions for a Litestar application.

    Handlers, dependencies and WebSocket handlers get `session: Session[AppSession]` and `sessions: SessionManager`. Raises
    `ConfigurationError` when the store cannot keep a promise that the configuration requires.
    """

    disconnects = LITESTAR_DISCONNECTS

    def __init__(self, config: SessionConfig[Any]) -> None:
        self.config = config
        self.application = SessionApplication(config, self)
        self.events = self.application.events
        self.store = self.application.store
        self.lifecycle = self.application.lifecycle
        self.sessions = self.application.sessions
        """Other people's sessions; also injected as `sessions`."""
        self.limits = self.application.limits
        """Rate limits per client: `await plugin.limits.take("newsletter", address, limit=10)`."""
        self.connections = self.application.connections
        self._cors: CORSConfig | None = None
        self._judges = False
        """Whether a route refuses cross-site requests."""
        self._outside = OutsideSessions(SessionServices(config, self.lifecycle, self, None))
        self._same_origin_middleware = SameOriginMiddleware(self.application.same_origin)
        asked = config.load_user is not None or config.request_session is not None
        self._idioms = ConnectionIdioms(config, self) if asked else None
        self._session_middleware: dict[tuple[bool, bool, bool], LitestarSessionMiddleware] = {}

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add dependencies, the error handler and the lifespan. Raises `ConfigurationError` beside another `SessionPlugin`."""
        if any(isinstance(plugin, SessionPlugin) and plugin is not self for plugin in app_config.plugins):
            msg = "the application has two SessionPlugins, and only one could be injected; remove one of them"
            raise ConfigurationError(msg)
        app_config.dependencies.setdefault("session", Provide(provide_session))
        app_config.dependencies.setdefault("sessions", Provide(lambda: self.sessions, sync_to_thread=False))
        app_config.exception_handlers.setdefault(SessionCoreError, self.handle_error)
        app_config.lifespan.append(self._lifespan)
        app_config.after_exception.append(_log_fault)
        if app_config.cors_config is not None:

            async def keep_vary(message: Message, scope: Scope) -> None:
                vary_on_cookie(message, scope, self.application.services.vary)

            app_config.before_send.append(keep_vary)
        self._cors = app_config.cors_config
        if not knows_layers():
            app_config.before_send.append(self._reach_outside())
        keep_out_of_cache(app_config)
        describe_application(app_config, self.config)
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Add the middleware to a route that needs it; other routes have no overhead.

        Raises `ConfigurationError` for a handler that could not get its session, or would share it between visitors.
        """
        of_one_handler: Any = route
        handlers: list[Any] = list(route.route_handlers) if isinstance(route, HTTPRoute) else [of_one_handler.route_handler]
        for handler in handlers:
            check_handler(handler, route.path, self.config)
            if self.outside is None and may_ask_outside(handler, uses=self._serves(handler)):
                handler.app.before_send.append(self._reach_outside())
        direct = inject_directly(route)
        for handler in handlers:
            describe(handler, uses=self._serves(handler), bearer=self.config.bearer)
            added = self._added(handler, route.path, direct=direct)
            added = [middleware for middleware in added if middleware not in (handler.middleware or ())]
            if added:
                # A new list: handlers share theirs with their copies for other routes.
                handler.middleware = [*added, *(handler.middleware or ())]

    def _added(self, handler: BaseRouteHandler, path: str, *, direct: bool) -> list[Any]:
        """Return the middleware that a handler needs."""
        judged = is_state_changing(handler) and not handler.opt.get("cross_site")
        self._judges = self._judges or judged
        if not self._serves(handler):
            return [self._same_origin_middleware] if judged else []
        if forbid_cache(handler):
            _log.warning("response cache switched off: the route uses the session", path=path)
        sessions = self._middleware(judged=judged, direct=direct, extends=handler.opt.get(TOUCH) is not False)
        return [sessions] if self._idioms is None else [sessions, self._idioms]

    def _middleware(self, *, judged: bool, direct: bool, extends: bool) -> LitestarSessionMiddleware:
        """Return the one middleware for all routes of a kind."""
        found = self._session_middleware.get((judged, direct, extends))
        if found is None:
            same_origin = self.application.same_origin if judged else None
            services = self.application.services
            found = LitestarSessionMiddleware(services, same_origin, injected_directly=direct, extends=extends)
            self._session_middleware[judged, direct, extends] = found
        return found

    def _serves(self, handler: BaseRouteHandler) -> bool:
        return self.config.middleware_on == "all_routes" or uses_session(handler, by_connection=self._idioms is not None)

    def _reach_outside(self) -> Callable[[Message, Scope], Awaitable[None]]:
        """Make `session_of` work outside of our middleware; return the hook that then changes the responses.

        The hook slows down every message, so it is added only if code there could ask for the session.
        """
        self.outside = self._outside
        return self._outside.amend

    def on_cli_init(self, cli: Group) -> None:
        """Add `litestar sessions ...` and `litestar check`."""
        from session_core.litestar.commands import add_commands  # noqa: PLC0415 - a server does not need the commands

        add_commands(cli)

    def handle_error(self, request: Request[Any, Any, Any], error: SessionCoreError) -> Response[Any]:
        """Answer a library error; an application may register its own handler for `SessionCoreError` instead."""
        return error_response(request, error, self.config)

    async def check_online(self) -> list[OnlineCheck]:
        """Check the session store, outside of a running application."""
        try:
            await self.store.open()
            await self.store.ping()
        except SessionCoreError as error:
            cause = type(error.__cause__).__name__ if error.__cause__ else ""
            return [OnlineCheck("session store", good=False, detail=", ".join(filter(None, [str(error), cause])))]
        finally:
            await self.store.close()
        return [OnlineCheck("session store", good=True)]

    def client_address(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str:
        """Return the address of a client from `SessionConfig.device`, else the peer's."""
        if self.config.device is not None:
            return self.config.device(connection).ip
        return connection.client.host if connection.client else ""

    async def answer_error(self, scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
        """Send the application's response to an error that was raised while its response was being sent."""
        await _log_fault(error, scope)
        app: Litestar = scope["litestar_app"]
        request: Request[Any, Any, Any] = app.request_class(scope, receive, send)
        route_handler = scope.get("route_handler")  # none on 404 and 405 pages
        handlers = resolved(route_handler, "exception_handlers") if route_handler is not None else app.exception_handlers
        handler: Any = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
        response: Response[Any] = (handler or create_exception_response)(request, error)
        await response.to_asgi_response(app=None, request=request)(scope, receive, send)

    def connection_of(self, scope: Scope) -> ASGIConnection[Any, Any, Any, Any]:
        """Return the request or WebSocket of a scope, as the application's handlers get it."""
        app: Litestar = scope["litestar_app"]
        return app.request_class(scope) if scope["type"] == ScopeType.HTTP else app.websocket_class(scope)

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        del app
        for problem in cors_disagreements(self._cors, self.config) if self._cors and self._judges else ():
            _log.warning("cors and trusted origins disagree", problem=problem)
        async with self.application.running():
            yield


async def _log_fault(error: Exception, scope: Scope) -> None:
    """Log errors of the application's own code, which would otherwise be a 500 without a log entry."""
    if isinstance(error, SessionCoreError) and error.status_code == _SERVER_ERROR:
        _log.error("session error", code=error.code, problem=str(error), path=scope["path"])


def plugin_of(connection: ASGIConnection[Any, Any, Any, Any]) -> SessionPlugin:
    """Return the session plugin of the application that serves `connection`. Raises `ConfigurationError` without one."""
    try:
        return connection.app.plugins.get(SessionPlugin)
    except KeyError:
        raise missing_plugin(connection.scope) from None
