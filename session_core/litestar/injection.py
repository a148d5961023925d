"""Gives handlers their session without the detour of Litestar's injection.

A dependency costs a task-group's worth of care for generators that this one does not need: 283 bytecode instructions of 3,400.
What a handler takes is decided by Litestar, as for any dependency; only who fetches it is changed, when the route is registered.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from litestar.routes import HTTPRoute, WebSocketRoute

from session_core.asgi.known_code import INJECTION, is_known
from session_core.asgi.middleware import SCOPE_KEY, provide_session

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.routes import BaseRoute

__all__ = ("inject_directly",)

_NAME: Final = "session"


def inject_directly(route: BaseRoute) -> bool:
    """Let the handlers of a route fetch the session beside their parameters, before other dependencies; return whether they do.

    Where `session` is another dependency nothing is changed, nor in a Litestar that differs in anything this relies on.
    """
    if not is_known(INJECTION):
        return False
    try:
        changes = [_without_session(model) for model in _models_of(route)]
    except Exception:  # noqa: BLE001 - whatever is different, Litestar injects the session itself
        return False
    # Only now: a route is changed as a whole, or not at all.
    for model, batches, extractors in filter(None, changes):
        model.dependency_batches, model.extractors = batches, extractors
    return True


def _models_of(route: Any) -> list[Any]:  # noqa: ANN401 - Litestar's own, and private
    if isinstance(route, HTTPRoute):
        return [model for _, model in route.route_handler_map.values()]
    return [route.handler_parameter_model] if isinstance(route, WebSocketRoute) else []


def _without_session(model: Any) -> tuple[Any, list[Any], list[Any]] | None:  # noqa: ANN401 - likewise
    """Return what a model has to become, or None: it takes no session of ours. Raises anything for another kind of model."""
    batches: list[set[Any]] = model.dependency_batches
    for dependency in chain.from_iterable(batches):
        if dependency.key == _NAME and dependency.provide.dependency is provide_session:
            return model, [rest for batch in batches if (rest := batch - {dependency})], [_extract, *model.extractors]
    return None


async def _extract(values: dict[str, Any], connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    scope: Any = connection.scope
    values[_NAME] = await scope[SCOPE_KEY].load()
