"""Gives handlers their session without the detour of Litestar's injection.

A dependency costs a task-group's worth of care for generators that this one does not need: 283 bytecode instructions of 3,400.
What a handler takes is decided by Litestar, as for any dependency; only who fetches it is changed, when the route is registered.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from litestar.routes import HTTPRoute, WebSocketRoute

from session_core.asgi.middleware import SCOPE_KEY, provide_session

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.routes import BaseRoute

__all__ = ("inject_directly",)

_NAME: Final = "session"


def inject_directly(route: BaseRoute) -> bool:
    """Let the handlers of a route fetch the session beside their parameters, before other dependencies; return whether they do.

    Where `session` is somebody else's dependency nothing is changed, nor in a Litestar that keeps its handlers in another way.
    """
    try:
        if isinstance(route, HTTPRoute):
            for _, model in route.route_handler_map.values():
                _take_out(model)
        elif isinstance(route, WebSocketRoute):
            _take_out(route.handler_parameter_model)
    except AttributeError:
        return False
    return True


def _take_out(model: Any) -> None:  # noqa: ANN401 - Litestar's own, and private
    batches, extractors = model.dependency_batches, model.extractors
    for dependency in chain.from_iterable(batches):
        if dependency.key == _NAME and dependency.provide.dependency is provide_session:
            model.dependency_batches = [rest for batch in batches if (rest := batch - {dependency})]
            extractors.append(_extract)
            return


async def _extract(values: dict[str, Any], connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    scope: Any = connection.scope
    values[_NAME] = await scope[SCOPE_KEY].load()
