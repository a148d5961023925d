"""Refuses mistakes when a route is registered, naming the handler and the fix. Runs before any request."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from session_core.errors import ConfigurationError
from session_core.litestar.routes import CONNECTIONS, is_ours, is_public, resolved, session_guards, takes_session
from session_core.sessions.handle import SessionHandle

if TYPE_CHECKING:
    from litestar.di import Provide
    from litestar.handlers import BaseRouteHandler
    from litestar.typing import FieldDefinition

    from session_core.config import SessionConfig

__all__ = ("check_handler", "refuse_in_cached_dependency")

_BODY: Final = frozenset({"data", "body"})
_cached: ContextVar[str | None] = ContextVar("session_core.litestar.cached_dependency", default=None)
"""The dependency with `use_cache` that is being computed."""


class _Parameter(NamedTuple):
    """A parameter of a handler, or of a dependency that it reaches; `through` are the names of these dependencies."""

    name: str
    field: FieldDefinition
    provider: Provide | None
    through: tuple[str, ...]


def check_handler(handler: BaseRouteHandler, path: str, config: SessionConfig[Any]) -> None:
    """Refuse a handler that cannot get its session, or would share one between visitors. Raises `ConfigurationError`."""
    where = f"{handler} ({path})"
    for parameter in _parameters(handler):
        _check_parameter(parameter, where, config)
        if parameter.provider is not None and parameter.provider.use_cache:
            _check_cached(parameter, handler, where)
    for guard in session_guards(handler):
        wanted = getattr(guard, "session_data", None)
        if wanted is not None and not issubclass(config.data_type, wanted):
            msg = f"{where} is guarded by requires({wanted.__name__}, ...), but sessions hold {config.data_type.__name__}"
            raise ConfigurationError(msg)
    if handler.opt.get("session") is False:
        if takes_session(handler):
            msg = f"{where} takes the session and has opt={{'session': False}}; remove one of the two"
            raise ConfigurationError(msg)
        if session_guards(handler) and not is_public(handler):
            msg = (
                f"{where} has guards that ask for the session and opt={{'session': False}}; make the route public with "
                "opt={'exclude_from_auth': True}, or remove the option"
            )
            raise ConfigurationError(msg)
    _check_cookie_names(handler, where, config.resolved_cookie.name)


def refuse_in_cached_dependency() -> None:
    """Raise `ConfigurationError` while a dependency with `use_cache` is computed: all visitors would get this one's value."""
    name = _cached.get()
    if name is not None:
        msg = f"the dependency `{name}` has use_cache=True and asks for the session; remove use_cache"
        raise ConfigurationError(msg)


def _parameters(handler: BaseRouteHandler) -> Iterator[_Parameter]:
    """Iterate over the parameters of a handler and of all dependencies that it reaches, each dependency once."""
    dependencies = resolved(handler, "dependencies")
    pending: list[tuple[tuple[str, ...], dict[str, FieldDefinition]]] = [((), handler.parsed_fn_signature.parameters)]
    seen: set[str] = set()
    while pending:
        through, parameters = pending.pop()
        for name, field in parameters.items():
            provider = dependencies.get(name)
            yield _Parameter(name, field, provider, through)
            if provider is not None and name not in seen:
                seen.add(name)
                pending.append(((*through, name), provider.parsed_fn_signature.parameters))


def _check_parameter(parameter: _Parameter, where: str, config: SessionConfig[Any]) -> None:
    name, field, provider, through = parameter
    if through:
        where = f"{where}, dependency {' -> '.join(through)}"
    right = f"`session: Session[{config.data_type.__name__}]`"
    if field.is_subclass_of(SessionHandle):
        if not is_ours(provider):
            msg = f"{where}: the session cannot be injected as `{name}`; write {right}"
            raise ConfigurationError(msg)
        wanted = next(iter(get_args(field.annotation)), None)
        if isinstance(wanted, type) and wanted is not Any and not issubclass(config.data_type, wanted):
            msg = f"{where} takes Session[{wanted.__name__}], but sessions hold {config.data_type.__name__}; write {right}"
            raise ConfigurationError(msg)
    elif is_ours(provider):
        if field.annotation not in {Any, object}:
            msg = f"{where}: `{name}` is the session; write {right}, or give the parameter another name"
            raise ConfigurationError(msg)
    elif provider is None and name not in _BODY and _is_or_may_be(field, config.data_type):
        msg = f"{where}: `{name}` is annotated with the struct of the session data; write {right}, and read `session.data`"
        raise ConfigurationError(msg)


def _is_or_may_be(field: FieldDefinition, kind: type) -> bool:
    """Whether a parameter is of this type, or of a union with it."""
    return field.is_subclass_of(kind) or (field.is_union and field.has_inner_subclass_of(kind))


def _check_cached(parameter: _Parameter, handler: BaseRouteHandler, where: str) -> None:
    """Refuse a dependency with `use_cache` that depends on the session."""
    assert parameter.provider is not None  # noqa: S101 - the caller has looked
    dependencies = resolved(handler, "dependencies")
    pending: list[tuple[Provide, tuple[str, ...]]] = [(parameter.provider, (parameter.name,))]
    seen, connected = {parameter.name}, False
    while pending:
        provider, chain = pending.pop()
        for name, field in provider.parsed_fn_signature.parameters.items():
            inner = dependencies.get(name)
            if is_ours(inner) or field.is_subclass_of(SessionHandle):
                through = f" (through {' -> '.join(chain[1:])})" if chain[1:] else ""
                msg = (
                    f"{where}: the dependency `{parameter.name}` has use_cache=True and takes the session{through}: "
                    "all visitors would get the first one's value; remove use_cache"
                )
                raise ConfigurationError(msg)
            connected = connected or name in CONNECTIONS
            if inner is not None and name not in seen:
                seen.add(name)
                pending.append((inner, (*chain, name)))
    if connected:
        _watch(parameter.provider, parameter.name)


def _watch(provider: Provide, name: str) -> None:
    """Make `session_of` raise while this dependency is computed; its signature does not show that it uses the session."""
    function: Any = provider.dependency
    if getattr(function, "refuses_session", False):
        return

    @wraps(function, updated=())
    async def cached(**values: Any) -> Any:  # noqa: ANN401 - whatever the dependency gives
        token = _cached.set(name)
        try:
            value = function(**values)
            return await value if inspect.isawaitable(value) else value
        finally:
            _cached.reset(token)

    @wraps(function, updated=())
    def cached_sync(**values: Any) -> Any:  # noqa: ANN401 - likewise
        token = _cached.set(name)
        try:
            return function(**values)
        finally:
            _cached.reset(token)

    watched: Any = cached_sync if provider.has_sync_callable else cached
    watched.refuses_session = True
    provider.dependency = watched


def _check_cookie_names(handler: BaseRouteHandler, where: str, cookie: str) -> None:
    """Refuse another session middleware whose cookie has the name of ours: each would overwrite the other's."""
    for middleware in resolved(handler, "middleware"):
        backend = getattr(middleware, "kwargs", {}).get("backend") or getattr(middleware, "backend", None)
        if getattr(getattr(backend, "config", None), "key", None) == cookie:
            msg = (
                f"{where}: Litestar's session middleware uses the cookie {cookie!r}, too; give it another name with "
                "ServerSideSessionConfig(key=...), or ours with SessionConfig(cookie=CookieConfig(name=...))"
            )
            raise ConfigurationError(msg)
