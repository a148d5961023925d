"""Typed Litestar guards over the session. Independent of how the user logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from session_core.asgi import rules
from session_core.errors import AccessDeniedError, ForbiddenError
from session_core.extras import extra

with extra("litestar", "litestar", wanted="session_core.guards"):
    from litestar.enums import ScopeType
    from litestar.exceptions import WebSocketException

    from session_core.litestar.access import session_of
    from session_core.litestar.plugin import plugin_of
    from session_core.litestar.routes import is_public

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

    from session_core.config import SessionConfig
    from session_core.identity import Identity
    from session_core.sessions.handle import SessionHandle

__all__ = ("forbids_impersonation", "requires", "requires_acr", "requires_login", "requires_recent_login", "requires_role")

D = TypeVar("D", bound=msgspec.Struct)
Connection: TypeAlias = "ASGIConnection[Any, Any, Any, Any]"
SessionGuard: TypeAlias = "Callable[[Connection, BaseRouteHandler], Awaitable[None]]"

_WEBSOCKET_CODES = 4000


async def requires_login(connection: Connection, handler: BaseRouteHandler) -> None:
    """Accept logged-in users. Others get 401; a browser is redirected to the login and back.

    All guards here accept every request on a route with `opt={"exclude_from_auth": True}`, set on any layer.
    """
    await _guarded(connection, handler, rules.login_rule)


async def forbids_impersonation(connection: Connection, handler: BaseRouteHandler) -> None:
    """Accept logged-in users who act for themselves. An administrator who acts as the user gets 403.

    `requires_recent_login` and `requires_acr` do so as well: an impersonation never satisfies them.
    """
    await _guarded(connection, handler, rules.own_rule)


def requires(data_type: type[D], predicate: Callable[[SessionHandle[D]], bool | Awaitable[bool]]) -> SessionGuard:
    """Accept users for whose session `predicate` returns True: 401 when no user is logged in, 403 when it does not.

    `data_type` types the predicate's argument, and must be the data type of the application's sessions.
    """
    return _guard(rules.predicate_rule(predicate), f"requires {data_type.__name__}", data_type)


def requires_role(*roles: str) -> SessionGuard:
    """Accept users who have one of the roles now (`SessionConfig.roles` is called in every request)."""
    return _guard(rules.role_rule(roles), f"requires role {' or '.join(roles)}")


def requires_recent_login(*, minutes: float = 0, seconds: float = 0) -> SessionGuard:
    """Accept users who authenticated at most this long ago (`auth_time`); others are redirected to log in again and back."""
    rule, max_age = rules.recent_login_rule(minutes, seconds)
    return _guard(rule, f"requires login within {max_age} s")


def requires_acr(*acr_values: str) -> SessionGuard:
    """Accept users whose login has one of the authentication context classes (OpenID Connect Core 2, `acr`)."""
    return _guard(rules.acr_rule(acr_values), f"requires acr {' or '.join(acr_values)}")


def _guard(rule: rules.Rule, description: str, data_type: type[msgspec.Struct] | None = None) -> SessionGuard:
    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        await _guarded(connection, handler, rule)

    # The table of routes and their guards (`litestar check`) shows this.
    guard.__name__ = description
    _mark(guard, data_type)
    return guard


def _mark(guard: Any, data_type: type[msgspec.Struct] | None) -> None:  # noqa: ANN401 - functions have no type for this
    """Mark a guard so that the plugin knows that it uses the session, and its data type."""
    guard.session_guard = True
    guard.session_data = data_type


async def _guarded(connection: Connection, handler: BaseRouteHandler, rule: rules.Rule) -> None:
    """Check a rule; a WebSocket is refused with another exception."""
    if is_public(handler):
        return
    plugin = plugin_of(connection)

    async def with_user(session: SessionHandle[Any], identity: Identity, config: SessionConfig[Any]) -> None:
        if config.load_user is not None and connection.scope.get("user") is None:  # the application does not know it
            raise ForbiddenError
        await rule(session, identity, config)

    try:
        session = await session_of(connection)
        await rules.check(session, with_user, plugin.config, plugin.events)
    except AccessDeniedError as error:
        if connection.scope["type"] == ScopeType.WEBSOCKET:
            raise WebSocketException(detail=error.title, code=_WEBSOCKET_CODES + error.status_code) from error
        raise


_mark(requires_login, None)
_mark(forbids_impersonation, None)
