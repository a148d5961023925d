"""Dependencies for FastAPI's `Depends`, also callable by Starlette handlers: the session, the manager, the guards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from session_core.asgi import rules
from session_core.asgi.middleware import SCOPE_KEY
from session_core.errors import ConfigurationError
from session_core.sessions.handle import SessionHandle
from session_core.sessions.manager import SessionManager
from session_core.starlette.middleware import sessions_of

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
else:
    try:
        from starlette.requests import HTTPConnection
    except ModuleNotFoundError:  # a plain ASGI application, which does not need this module
        HTTPConnection = Any

__all__ = (
    "forbids_impersonation", "get_session", "get_sessions", "requires", "requires_acr", "requires_login", "requires_recent_login",
    "requires_role",
)  # fmt: skip

D = TypeVar("D", bound=msgspec.Struct)
Guard: TypeAlias = Callable[[HTTPConnection], Awaitable[None]]


async def get_session(connection: HTTPConnection) -> SessionHandle[Any]:
    """Return the loaded session of a request or WebSocket: `Annotated[SessionHandle[AppSession], Depends(get_session)]`.

    Raises `StoreUnavailableError`.
    """
    sessions_of(connection.scope)
    handle: SessionHandle[Any] = connection.scope[SCOPE_KEY]
    return await handle.load()


async def get_sessions(connection: HTTPConnection) -> SessionManager:
    """Return the manager for other people's sessions: `Annotated[SessionManager, Depends(get_sessions)]`."""
    return sessions_of(connection.scope).sessions


async def requires_login(connection: HTTPConnection) -> None:
    """Accept logged-in users: `dependencies=[Depends(requires_login)]`. Others get 401; a browser is redirected to the login."""
    await _check(connection, rules.login_rule)


async def forbids_impersonation(connection: HTTPConnection) -> None:
    """Accept logged-in users who act for themselves. An administrator who acts as the user gets 403."""
    await _check(connection, rules.own_rule)


def requires(data_type: type[D], predicate: Callable[[SessionHandle[D]], bool | Awaitable[bool]]) -> Guard:
    """Accept users for whose session `predicate` returns True: 401 when no user is logged in, 403 when it does not.

    `data_type` types the predicate's argument, and must be the data type of the application's sessions.
    """
    rule = rules.predicate_rule(predicate)

    async def guard(connection: HTTPConnection) -> None:
        kept = sessions_of(connection.scope).config.data_type
        if not issubclass(kept, data_type):
            msg = f"a route is guarded by requires({data_type.__name__}, ...), but sessions hold {kept.__name__}"
            raise ConfigurationError(msg)
        await _check(connection, rule)

    return guard


def requires_role(*roles: str) -> Guard:
    """Accept users who have one of the roles now (`SessionConfig.roles` is called in every request)."""
    return _guard(rules.role_rule(roles))


def requires_recent_login(*, minutes: float = 0, seconds: float = 0) -> Guard:
    """Accept users who authenticated at most this long ago (`auth_time`); others are redirected to log in again and back."""
    return _guard(rules.recent_login_rule(minutes, seconds)[0])


def requires_acr(*acr_values: str) -> Guard:
    """Accept users whose login has one of the authentication context classes (OpenID Connect Core 2, `acr`)."""
    return _guard(rules.acr_rule(acr_values))


def _guard(rule: rules.Rule) -> Guard:
    async def guard(connection: HTTPConnection) -> None:
        await _check(connection, rule)

    return guard


async def _check(connection: HTTPConnection, rule: rules.Rule) -> None:
    sessions = sessions_of(connection.scope)
    await rules.check(await get_session(connection), rule, sessions.config, sessions.application.events)
