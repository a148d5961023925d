"""Who may pass: typed Litestar guards over the session. A login that is not OpenID Connect can use them all the same."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec

from session_core.errors import (
    AccessDeniedError,
    ConfigurationError,
    ForbiddenError,
    LoginRequiredError,
    StepUpRequiredError,
)
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

    from session_core.identity import Identity
    from session_core.sessions.handle import SessionHandle

__all__ = ("requires", "requires_acr", "requires_login", "requires_recent_login", "requires_role")

D = TypeVar("D", bound=msgspec.Struct)
Connection: TypeAlias = "ASGIConnection[Any, Any, Any, Any]"
SessionGuard: TypeAlias = "Callable[[Connection, BaseRouteHandler], Awaitable[None]]"
_Check: TypeAlias = "Callable[[SessionHandle[Any], Identity, Connection], Awaitable[None]]"

_WEBSOCKET_CODES = 4000
_ACR: Final = re.compile(r"[!#-\[\]-~]{1,255}\Z")
"""Printable ASCII without space, quote and backslash: a list of them is sent as words, and quoted in a header (RFC 9470 3)."""


async def requires_login(connection: Connection, handler: BaseRouteHandler) -> None:
    """Let logged-in users pass. Others get 401; a browser is sent to the login and comes back.

    This and the other guards let everyone pass on a route with `opt={"exclude_from_auth": True}`, on whatever layer it stands.
    """
    await _guarded(connection, handler, _nothing_more)


def requires(data_type: type[D], predicate: Callable[[SessionHandle[D]], bool | Awaitable[bool]]) -> SessionGuard:
    """Let users pass of whose session `predicate` is true: 401 when no user is logged in, 403 when it is false.

    `data_type` types the predicate's argument, and must be the data type of the application's sessions.
    """

    async def check(session: SessionHandle[Any], identity: Identity, connection: Connection) -> None:
        del identity, connection
        # Exactly True: a predicate that forgets to call something must not let everybody in.
        if await _answer(predicate(session)) is not True:
            raise ForbiddenError

    return _guard(check, f"requires {data_type.__name__}", data_type)


def requires_role(*roles: str) -> SessionGuard:
    """Let users pass who have one of the roles now (`SessionConfig.roles` is asked in every request)."""
    if not roles:
        msg = "requires_role needs at least one role, for example requires_role('admin')"
        raise ConfigurationError(msg)

    async def check(session: SessionHandle[Any], identity: Identity, connection: Connection) -> None:
        del identity
        has = await _answer(plugin_of(connection).config.roles(session))
        if not set(roles) & set(has):
            raise ForbiddenError

    return _guard(check, f"requires role {' or '.join(roles)}")


def requires_recent_login(*, minutes: float = 0, seconds: float = 0) -> SessionGuard:
    """Let users pass who proved who they are at most so long ago (`auth_time`); others log in again and come back."""
    max_age = int(minutes * 60 + seconds)
    if max_age <= 0:
        msg = "requires_recent_login needs a positive time, for example requires_recent_login(minutes=5)"
        raise ConfigurationError(msg)

    async def check(session: SessionHandle[Any], identity: Identity, connection: Connection) -> None:
        del session
        now = plugin_of(connection).config.clock.now() // 1000
        # An OP that does not say when has not proved that it was recently.
        if identity.auth_time is None or now - identity.auth_time > max_age:
            raise StepUpRequiredError(max_age=max_age)

    return _guard(check, f"requires login within {max_age} s")


def requires_acr(*acr_values: str) -> SessionGuard:
    """Let users pass whose login reached one of the authentication context classes (OpenID Connect Core 2, `acr`)."""
    if not acr_values or not all(_ACR.match(value) for value in acr_values):
        msg = "requires_acr needs at least one value, and values are single words, for example requires_acr('phr')"
        raise ConfigurationError(msg)

    async def check(session: SessionHandle[Any], identity: Identity, connection: Connection) -> None:
        del session, connection
        if identity.acr not in acr_values:
            raise StepUpRequiredError(acr_values=acr_values)

    return _guard(check, f"requires acr {' or '.join(acr_values)}")


def _guard(check: _Check, description: str, data_type: type[msgspec.Struct] | None = None) -> SessionGuard:
    async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        await _guarded(connection, handler, check)

    # The table of routes and their guards (`litestar check`) shows this.
    guard.__name__ = description
    _mark(guard, data_type)
    return guard


def _mark(guard: Any, data_type: type[msgspec.Struct] | None) -> None:  # noqa: ANN401 - functions have no type for this
    """Have the plugin know that it asks for the session, and of which data."""
    guard.session_guard = True
    guard.session_data = data_type


async def _guarded(connection: Connection, handler: BaseRouteHandler, check: _Check) -> None:
    """Run a check for a logged-in, active user; tell refusals as an event, and in WebSocket terms on a WebSocket."""
    if is_public(handler):
        return
    session = await session_of(connection)
    plugin = plugin_of(connection)
    try:
        identity = session.identity
        if identity is None:
            raise LoginRequiredError
        is_active = plugin.config.is_active
        if is_active is not None and await _answer(is_active(identity)) is not True:
            raise ForbiddenError
        await check(session, identity, connection)
    except AccessDeniedError as error:
        if not isinstance(error, LoginRequiredError):
            await plugin.events.emit("access.denied", handle=session.handle, identity=session.identity, reason=error.code)
        if connection.scope["type"] == ScopeType.WEBSOCKET:
            raise WebSocketException(detail=error.title, code=_WEBSOCKET_CODES + error.status_code) from error
        raise


async def _nothing_more(session: SessionHandle[Any], identity: Identity, connection: Connection) -> None:
    del session, identity, connection


async def _answer(value: Any) -> Any:  # noqa: ANN401 - bool or roles, plain or awaitable
    return await value if inspect.isawaitable(value) else value


_mark(requires_login, None)
