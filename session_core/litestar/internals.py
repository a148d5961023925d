"""Everything that bypasses or changes Litestar's own code. `enabled = False` turns all of it off; nothing but speed is lost.

Gains are CPython bytecode instructions of the 3,700 that a request takes without them which reads its session from Redis (a page
without a session: 1,910), Litestar 2.25 on CPython 3.11.

| bypass | what it skips | gain | how a different Litestar is detected |
|---|---|---|---|
| `direct_route.call_directly` | what is between a route and its handler, and makes JSON a response | 1,230, 33 % | `HANDLING` |
| `inject_directly` | dependency resolution (a task group, and the cleanup of generators) for `session` | 300, 8 % | `INJECTION` |
| `error_guard_of` | the inner exception middleware, unless the handler raises | 81, 2.2 % | `ERROR_HANDLING` |
| `wrap` | the path and scope checks of `ASGIMiddleware` for each request | 80, 2.1 % | public: overrides `__call__` |
| `explain_refusals` | nothing; names the fix where the application has no plugin | - | the function is missing |

The first three rely on what private code does, which no version number promises. So its text is compared with the text that was
examined: any difference, in a patched function too, and Litestar does its own work. A bypass that gains less than 1 % is removed.
"""

from __future__ import annotations

import inspect
from copy import copy
from functools import cache, partial, wraps
from hashlib import sha256
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from litestar.enums import ScopeType
from litestar.exceptions import ImproperlyConfiguredException, LitestarException
from litestar.middleware import ASGIMiddleware
from litestar.routes import HTTPRoute, WebSocketRoute

from session_core.asgi.middleware import SCOPE_KEY
from session_core.errors import ConfigurationError
from session_core.litestar.dependency import provide_session
from session_core.sessions.handle import SessionHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from litestar.connection import ASGIConnection
    from litestar.routes import BaseRoute
    from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = (
    "ERROR_HANDLING", "INJECTION", "ErrorGuard", "digest_of", "enabled", "error_guard_of", "explain_refusals", "inject_directly",
    "is_known", "take_session", "wrap",
)  # fmt: skip

enabled = True
"""Set to False before the application is built: Litestar then does everything itself."""

_NAME: Final = "session"
_REFUSAL: Final = "_validate_signature_dependencies"
_KWARGS: Final = "litestar._kwargs"
_ERRORS: Final = "litestar.middleware._internal.exceptions.middleware"
INJECTION: Final = {
    f"{_KWARGS}.kwargs_model:KwargsModel.to_kwargs": {"e65fc434b8fe07d7"},
    f"{_KWARGS}.kwargs_model:KwargsModel.resolve_dependencies": {"f5e60119abf69eff"},
    f"{_KWARGS}.dependencies:DependencyContainer.__init__": {"aa6c79ecdd9d9a76"},
    f"{_KWARGS}.dependencies:DependencyContainer.__hash__": {"9081408882fe7919"},
    f"{_KWARGS}.dependencies:resolve_dependency": {"93389036f84284c2"},
    "litestar.routes.http:HTTPRoute.handle": {"8ccd0dea281aef89"},
    "litestar.routes.http:HTTPRoute.create_handler_map": {"905d5adef71f63eb"},
    "litestar.routes.http:HTTPRoute._get_response_for_request": {"d9fe1e4def5f4330"},
    "litestar.routes.http:HTTPRoute._call_handler_function": {"1c16959270a85413"},
    "litestar.routes.websocket:WebSocketRoute.handle": {"50d8e3e37a719dfc"},
}
"""What the bypass of the injection relies on, with the digests of known texts. Added to when a new Litestar was looked at."""
ERROR_HANDLING: Final = {
    f"{_ERRORS}:ExceptionHandlerMiddleware.__init__": {"5ed9397cb34da00c"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.__call__": {"a579d936179fdd30"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.handle_request_exception": {"018570234ce274e4"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.handle_websocket_exception": {"7719540ee6d69c79"},
}
"""What the bypass of the exception middleware relies on."""


def is_known(relied_on: dict[str, set[str]]) -> bool:
    """Whether all code that a bypass relies on is known."""
    return all(digest_of(name) in digests for name, digests in relied_on.items())


def digest_of(name: str) -> str | None:
    """Return the digest of the text of a function, `module:path`, or None: there is no such function, or no text."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return _digest(found)


@cache
def _digest(function: Any) -> str | None:  # noqa: ANN401 - whatever has that name
    try:
        return sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return None


def inject_directly(route: BaseRoute) -> bool:
    """Let the handlers of a route fetch the session beside their parameters, before other dependencies; return whether they do.

    Where `session` is another dependency nothing is changed, nor in a Litestar that differs in anything this relies on.
    """
    if not enabled or not is_known(INJECTION):
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
            return model, [rest for batch in batches if (rest := batch - {dependency})], [take_session, *model.extractors]
    return None


class _Done:
    """An awaitable that is done: a coroutine would cost a visitor's request as much as all else here."""

    def __await__(self) -> Iterator[None]:
        return iter(())


_DONE: Final = _Done()


def take_session(values: dict[str, Any], connection: ASGIConnection[Any, Any, Any, Any]) -> _Done | Coroutine[Any, Any, object]:
    """Put the session of a request into the values for its handler; await the result, which loads it."""
    scope: Any = connection.scope
    session: SessionHandle[Any] = scope[SCOPE_KEY]
    values[_NAME] = session
    return _DONE if session.begin_as_visitor() else session.load()


class ErrorGuard:
    """The exception handler around `app`."""

    def __init__(self, handler: Any) -> None:  # noqa: ANN401 - Litestar's own, and private
        self._handler = handler
        self.app: ASGIApp = handler.app

    async def answer(self, error: Exception, scope: Scope, receive: Receive, send: Send, *, started: bool) -> None:
        """Answer what `app` has raised, as the exception handler does. Raises what it raises.

        `started`: a response has begun. The handler would have seen that; middleware outside may be holding the response back.
        """
        if started and scope["type"] == ScopeType.HTTP:
            msg = "Exception caught after response started"
            raise LitestarException(msg) from error

        raised = [error]

        async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
            # Taken out: the traceback of an error holds the frame that raised it, which would hold the error, and everything of
            # the request with it.
            raise raised.pop()

        handler = copy(self._handler)
        handler.app = fail
        await handler(scope, receive, send)


def error_guard_of(app: ASGIApp) -> ErrorGuard | None:
    """Return the guard that `app` is, or None: it is another middleware, or Litestar differs in anything this relies on."""
    kind = type(app)
    if (
        not enabled
        or kind.__name__ != "ExceptionHandlerMiddleware"
        or not kind.__module__.startswith("litestar.")
        or not is_known(ERROR_HANDLING)
    ):
        return None
    return ErrorGuard(app) if callable(getattr(app, "app", None)) else None


def wrap(middleware: ASGIMiddleware, app: ASGIApp, serve: Callable[..., Any], *first: Any) -> ASGIApp:  # noqa: ANN401
    """Return the application behind a middleware that excludes no path and no scope: `serve(*first, scope, receive, send)`."""
    return partial(serve, *first) if enabled else ASGIMiddleware.__call__(middleware, app)


def explain_refusals() -> None:
    """Have Litestar's refusal of a session that no plugin provides say what to do: without the plugin nothing of ours runs."""
    try:
        model: Any = import_module("litestar._signature.model")
        refuse: Any = getattr(model, _REFUSAL)
    except (ImportError, AttributeError):  # then the refusal is Litestar's own
        return

    @wraps(refuse)
    def explained(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - Litestar's own, and private
        try:
            return refuse(*args, **named)
        except ImproperlyConfiguredException as error:
            fix = _fix_of([*args, *named.values()]) if enabled else None
            if fix is None:
                raise
            raise ConfigurationError(fix) from error

    setattr(model, _REFUSAL, explained)  # there is no public place for it


def _fix_of(values: list[Any]) -> str | None:
    """Return what to do about a refused signature, or None: it takes no session, or nothing is known about it."""
    function = next((value for value in values if isinstance(value, str)), "a handler")
    provided = next((value for value in values if isinstance(value, set | frozenset)), frozenset())
    for value in values:
        parameters = getattr(value, "parameters", None)
        for name, field in parameters.items() if isinstance(parameters, dict) else ():
            if name not in provided and field.is_subclass_of(SessionHandle):
                if name != _NAME:
                    return f"{function} takes a session as `{name}`; the parameter must be named `session`"
                return (
                    f"{function} takes `session: Session[...]`, but the application has no SessionPlugin: "
                    "Litestar(plugins=[SessionPlugin(SessionConfig(AppSession))])"
                )
    return None


explain_refusals()
