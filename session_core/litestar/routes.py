"""Finds out what a route needs of sessions from its handler: parameters, dependencies, guards, options."""

from __future__ import annotations

from typing import Any, Final

from litestar.di import Provide
from litestar.handlers import ASGIRouteHandler, BaseRouteHandler, HTTPRouteHandler, WebsocketRouteHandler

from session_core.litestar.dependency import provide_session
from session_core.sessions.handle import SessionHandle

__all__ = (
    "CONNECTIONS", "PUBLIC", "forbid_cache", "is_ours", "is_public", "is_session_guard", "is_state_changing", "knows_layers",
    "resolved", "session_guards", "takes_session", "uses_session",
)  # fmt: skip

PUBLIC: Final = "exclude_from_auth"
"""The option, on any layer, that makes routes public."""
CONNECTIONS = frozenset({"request", "socket", "scope"})
"""The parameters by which a handler or a dependency gets its connection."""
_UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def knows_layers() -> bool:
    """Whether a handler of this Litestar has its layers as parents. Litestar 3 merges them into it."""
    return hasattr(BaseRouteHandler, "ownership_layers") and hasattr(BaseRouteHandler, "app")


def resolved(handler: BaseRouteHandler, name: str) -> Any:  # noqa: ANN401 - what all layers together say
    """Return the guards, dependencies, middleware or exception handlers of a handler and all its layers."""
    return getattr(handler, f"resolve_{name}")() if knows_layers() else getattr(handler, name)


def uses_session(handler: BaseRouteHandler, *, by_connection: bool = False) -> bool:
    """Whether a request for this handler may need the session.

    True for `opt={"session": True}`, for any guard except ours on a public route, and if the handler or one of its dependencies,
    at any depth, takes a session (with `by_connection`: or the connection, which has `user` and `session`). False for
    `opt={"session": False}`.
    """
    chosen = handler.opt.get("session")
    if chosen is not None:
        return bool(chosen)
    guards = resolved(handler, "guards")
    if is_public(handler):
        guards = [guard for guard in guards if not is_session_guard(guard)]
    return bool(guards) or takes_session(handler, by_connection=by_connection)


def is_public(handler: BaseRouteHandler) -> bool:
    """Whether the session guards accept every request, by the option of Litestar's own authentication."""
    # Exactly True: a mistake must not open a route.
    return handler.opt.get(PUBLIC) is True


def is_session_guard(guard: object) -> bool:
    """Whether a guard is one of `session_core.guards`."""
    return bool(getattr(getattr(guard, "func", guard), "session_guard", False))


def session_guards(handler: BaseRouteHandler) -> list[object]:
    """Return the guards of `session_core.guards` on a handler."""
    return [getattr(guard, "func", guard) for guard in resolved(handler, "guards") if is_session_guard(guard)]


def is_ours(provider: Provide | None) -> bool:
    """Whether a dependency is our session, and not another one of that name."""
    return provider is not None and provider.dependency is provide_session


def is_state_changing(handler: BaseRouteHandler) -> bool:
    """Whether this handler must be protected from cross-site requests."""
    if isinstance(handler, HTTPRouteHandler):
        return bool(_UNSAFE_METHODS & set(handler.http_methods))
    # A mounted application may change state with any method.
    return isinstance(handler, WebsocketRouteHandler | ASGIRouteHandler)


def forbid_cache(handler: BaseRouteHandler) -> bool:
    """Switch Litestar's response cache off for a handler that uses the session; return whether it was on.

    The cache answers before the session is known: a visitor would get a page made for another one, or for an ended session.
    """
    if not isinstance(handler, HTTPRouteHandler) or handler.cache is False:
        return False
    handler.cache = False
    return True


def takes_session(handler: BaseRouteHandler, *, by_connection: bool = False) -> bool:
    """Whether the handler or a dependency, at any depth, takes a session; `by_connection`: or the connection."""
    dependencies = resolved(handler, "dependencies")
    pending = list(handler.parsed_fn_signature.parameters.items())
    seen: set[str] = set()
    while pending:
        name, field = pending.pop()
        provider = dependencies.get(name)
        if field.is_subclass_of(SessionHandle) or is_ours(provider) or (by_connection and name in CONNECTIONS):
            return True
        if provider is not None and name not in seen:
            seen.add(name)
            pending.extend(provider.parsed_fn_signature.parameters.items())
    return False
