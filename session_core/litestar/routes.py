"""Tells what a route needs of sessions by looking at its handler: parameters, dependencies, guards, options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler, WebsocketRouteHandler

from session_core.sessions.handle import SessionHandle

if TYPE_CHECKING:
    from litestar.handlers import BaseRouteHandler

__all__ = ("forbid_cache", "is_state_changing", "uses_session")

_UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def uses_session(handler: BaseRouteHandler) -> bool:
    """Whether a request for this handler may need the session.

    Yes for `opt={"session": True}`, for any guard (it may ask for it), and when the handler or one of its dependencies,
    however deep, takes a session. `opt={"session": False}` says no.
    """
    chosen = handler.opt.get("session")
    if chosen is not None:
        return bool(chosen)
    return bool(handler.resolve_guards()) or _takes_session(handler)


def is_state_changing(handler: BaseRouteHandler) -> bool:
    """Whether a browser must not be able to call this handler from another site."""
    if isinstance(handler, HTTPRouteHandler):
        return bool(_UNSAFE_METHODS & set(handler.http_methods))
    # What a mounted application does with a method is not known here.
    return isinstance(handler, WebsocketRouteHandler | ASGIRouteHandler)


def forbid_cache(handler: BaseRouteHandler) -> bool:
    """Switch Litestar's response cache off for a handler that uses the session; return whether it was on.

    The cache answers before the session is known: one visitor would get the page, or the page of a session that has ended, made
    for another.
    """
    if not isinstance(handler, HTTPRouteHandler) or handler.cache is False:
        return False
    handler.cache = False
    return True


def _takes_session(handler: BaseRouteHandler) -> bool:
    dependencies = handler.resolve_dependencies()
    pending = list(handler.parsed_fn_signature.parameters.items())
    seen: set[str] = set()
    while pending:
        name, field = pending.pop()
        if field.is_subclass_of(SessionHandle):
            return True
        provider = dependencies.get(name)
        if provider is None or name in seen:
            continue
        seen.add(name)
        if name == "session":
            return True
        pending.extend(provider.parsed_fn_signature.parameters.items())
    return False
