"""Refuses mistakes when a route is registered, naming the handler and the fix. Runs before any request."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import wraps
from typing import Any, Final, NamedTuple, get_args

from litestar.di import Provide
from litestar.handlers import BaseRouteHandler
from litestar.typing import FieldDefinition

from session_core.config import SessionConfig
from session_core.errors import ConfigurationError
from session_core.litestar.routes import CONNECTIONS, is_ours, is_public, resolved, session_guards, takes_session
from session_core.sessions.handle import SessionHandle

__all__ = ("check_handler", "refuse_in_cached_dependency")

_BODY: Final = frozenset({"data", "body"})
_OF_THE_USER: Final = frozenset({"user", "auth", "session"})
"""The keys of a scope that are filled from the session."""
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
        msg = f"the dependency `{name}` has use_cache=True and asks for the session or the user; remove use_cache"
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
    seen = {parameter.name}
    while pending:
        provider, chain = pending.pop()
        if not CONNECTIONS.isdisjoint(provider.parsed_fn_signature.parameters):
            _watch(provider, handler, parameter.name)
        for name, field in provider.parsed_fn_signature.parameters.items():
            inner = dependencies.get(name)
            if is_ours(inner) or field.is_subclass_of(SessionHandle):
                through = f" (through {' -> '.join(chain[1:])})" if chain[1:] else ""
                msg = (
                    f"{where}: the dependency `{parameter.name}` has use_cache=True and takes the session{through}: "
                    "all visitors would get the first one's value; remove use_cache"
                )
                raise ConfigurationError(msg)
            if inner is not None and name not in seen:
                seen.add(name)
                pending.append((inner, (*chain, name)))


def _watch(provider: Provide, handler: BaseRouteHandler, name: str) -> None:
    """Make `session_of` and `request.user` raise while this dependency is computed for a handler: its signature shows neither.

    `name` is the dependency with `use_cache`: this one, or one that is computed from it.
    """
    function: Any = provider.dependency
    if (cached_of := getattr(function, "cached_of", None)) is not None:
        cached_of.setdefault(handler, name)
        return
    cached_of = {handler: name}

    @contextmanager
    def computed(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        connection = next(values[each] for each in CONNECTIONS if each in values)
        scope = connection if isinstance(connection, dict) else connection.scope
        token = _cached.set(cached_of.get(scope["route_handler"]))
        try:
            yield {each: _hiding(value) if each in CONNECTIONS else value for each, value in values.items()}
        finally:
            _cached.reset(token)

    @wraps(function, updated=())
    async def watched(**values: Any) -> Any:  # noqa: ANN401 - whatever the dependency gives
        with computed(values) as given:
            value = function(**given)
            return await value if inspect.isawaitable(value) else value

    @wraps(function, updated=())
    def watched_sync(**values: Any) -> Any:  # noqa: ANN401 - likewise
        with computed(values) as given:
            return function(**given)

    replaced: Any = watched_sync if provider.has_sync_callable else watched
    replaced.cached_of = cached_of
    provider.dependency = replaced


class _HidingScope(dict[str, Any]):
    """A scope that does not name the user."""

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - anything
        if key in _OF_THE_USER:
            refuse_in_cached_dependency()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - likewise
        try:
            return self[key]
        except KeyError:
            return default


def _hiding(connection: Any) -> Any:  # noqa: ANN401 - a request, a WebSocket or a scope
    """Return a copy of a connection that does not name the user, while a dependency with `use_cache` is computed."""
    if _cached.get() is None:
        return connection
    if isinstance(connection, dict):
        return _HidingScope(connection)
    copied = copy(connection)
    copied.scope = _HidingScope(connection.scope)
    return copied


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
