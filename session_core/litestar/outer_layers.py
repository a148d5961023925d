"""Finds code outside our middleware that could ask for the session, and guards the response cache."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from litestar.config.app import AppConfig
from litestar.handlers import BaseRouteHandler
from litestar.types import HTTPScope

from session_core.asgi.middleware import SCOPE_KEY
from session_core.litestar.outside import CACHED_KEY
from session_core.litestar.routes import knows_layers, resolved

__all__ = ("keep_out_of_cache", "may_ask_outside")

_HOOKS: Final = ("before_request", "after_request", "after_response")
_APPLICATION_HOOKS: Final = ("after_exception", "before_send")


def may_ask_outside(handler: BaseRouteHandler, *, uses: bool) -> bool:
    """Whether any code around a handler could ask for the session outside of our middleware.

    `uses`: our middleware runs on this handler, inside its own middleware and all hooks.
    """
    if not knows_layers():
        return False
    layers: list[Any] = handler.ownership_layers
    app = layers[0]
    if any(_is_foreign(hook) for name in _APPLICATION_HOOKS for hook in getattr(app, name, ())):
        return True
    if any(_any_foreign(layer.middleware) for layer in (layers[:-1] if uses else layers)):
        return True
    handlers = [each for layer in layers for each in (layer.exception_handlers or {}).values()]
    if any(_is_foreign(each) and not _module_of(each).startswith("litestar.") for each in handlers):
        return True
    guards = [getattr(guard, "func", guard) for guard in resolved(handler, "guards")]
    return not uses and (
        any(map(_is_foreign, guards)) or any(callable(getattr(layer, name, None)) for layer in layers for name in _HOOKS)
    )


def keep_out_of_cache(app_config: AppConfig) -> None:
    """Make Litestar's response cache skip responses of requests that have asked for their session.

    The cache answers before the session is known: other visitors would get this one's response.
    """
    config = app_config.response_cache_config
    if config is None:
        return
    keep = config.cache_response_filter

    def keep_unless_asked(scope: HTTPScope, status_code: int) -> bool:
        state: Any = scope
        handle = state.get(SCOPE_KEY)
        if (handle is not None and handle.loaded) or not keep(scope, status_code):
            return False
        state[CACHED_KEY] = True
        return True

    app_config.response_cache_config = replace(config, cache_response_filter=keep_unless_asked)


def _any_foreign(middleware: Iterable[Any] | None) -> bool:
    return any(_is_foreign(getattr(each, "middleware", each)) for each in middleware or ())


def _is_foreign(thing: Any) -> bool:  # noqa: ANN401 - middleware, hook or handler
    return not _module_of(thing).startswith("session_core.")


def _module_of(thing: Any) -> str:  # noqa: ANN401 - likewise
    return str(getattr(thing, "__module__", "") or type(thing).__module__)
