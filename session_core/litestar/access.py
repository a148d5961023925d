"""Returns the session to code that has the connection: guards, middleware, hooks, exception handlers."""

from __future__ import annotations

from abc import ABC
from collections.abc import Coroutine
from typing import Any, Final

import structlog
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.types import Scope

from session_core.asgi.application import SessionApplication
from session_core.asgi.middleware import SCOPE_KEY
from session_core.errors import ConfigurationError
from session_core.litestar.checks import refuse_in_cached_dependency
from session_core.litestar.outside import OutsideSessions
from session_core.sessions.handle import SessionHandle

__all__ = ("KeepsSessions", "application_in", "loaded_session_of", "missing_plugin", "session_of")

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")
_NO_PLUGIN: Final = "the application has no SessionPlugin: Litestar(plugins=[SessionPlugin(SessionConfig(AppSession))])"


class KeepsSessions(ABC):
    """What `session_of` and the commands need of the plugin, without importing it."""

    application: SessionApplication[Any]
    outside: OutsideSessions | None = None
    """Loads a session outside of our middleware; None if no code of the application runs there."""


def application_in(app: Litestar) -> SessionApplication[Any]:
    """Return the session services of an application. Raises `ConfigurationError` if it has no `SessionPlugin`."""
    plugin = _plugin_in(app)
    if plugin is None:
        raise ConfigurationError(_NO_PLUGIN)
    return plugin.application


def missing_plugin(scope: Any) -> ConfigurationError:  # noqa: ANN401 - any kind of scope
    """Return the error for a request to an application without the plugin, and log it, which Litestar does not do by default."""
    msg = f"{scope.get('route_handler') or scope['path']} uses the session, but {_NO_PLUGIN}"
    _log.error("session error", code=ConfigurationError.code, problem=msg, path=scope["path"])
    return ConfigurationError(msg)


def session_of(connection: ASGIConnection[Any, Any, Any, Any] | Scope) -> Coroutine[Any, Any, SessionHandle[Any]]:
    """Return the loaded session of a request or WebSocket, for code without injection.

    Works in guards, hooks, middleware of every layer, and on 404 and 405 pages. Raises `ConfigurationError` in a handler that
    does not declare the session, and where the response would be cached for other clients; `StoreUnavailableError`.
    """
    refuse_in_cached_dependency()
    scope: Any = connection if isinstance(connection, dict) else connection.scope
    handle: SessionHandle[Any] | None = scope.get(SCOPE_KEY)
    return (_outside_of(scope).begin(scope) if handle is None else handle).load()


def loaded_session_of(connection: ASGIConnection[Any, Any, Any, Any] | Scope) -> SessionHandle[Any] | None:
    """Return the session if this request has loaded it already, else None: for exception handlers, which cannot await.

    An `after_exception` hook runs before them, and can load it by `session_of`.
    """
    refuse_in_cached_dependency()
    scope: Any = connection if isinstance(connection, dict) else connection.scope
    handle: SessionHandle[Any] | None = scope.get(SCOPE_KEY)
    return handle if handle is not None and handle.loaded else None


def _outside_of(scope: Any) -> OutsideSessions:  # noqa: ANN401 - a scope that is written to
    plugin = _plugin_in(scope["litestar_app"])
    if plugin is None:
        raise missing_plugin(scope)
    if plugin.outside is None:
        msg = (
            f"the route {scope['path']} does not use the session: inject it, guard the route, or give the handler "
            "opt={'session': True}"
        )
        raise ConfigurationError(msg)
    return plugin.outside


def _plugin_in(app: Litestar) -> KeepsSessions | None:
    return next((plugin for plugin in app.plugins if isinstance(plugin, KeepsSessions)), None)
