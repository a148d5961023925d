"""Everything that bypasses or changes Litestar's own code. `enabled = False` turns all of it off and only costs speed.

Gains are CPython bytecode instructions of the 3,700 that a request takes without them which reads its session from Redis (a page
without a session: 1,910), Litestar 2.25 on CPython 3.11.

| bypass | what it skips | gain | how a different Litestar is detected |
|---|---|---|---|
| `call_directly` | what is between a route and its handler, and makes JSON a response | 1,230, 33 % | `HANDLING` |
| `inject_directly` | dependency resolution (a task group, and the cleanup of generators) for `session` | 300, 8 % | `INJECTION` |
| `error_guard_of` | the inner exception middleware, unless the handler raises | 81, 2.2 % | `ERROR_HANDLING` |
| `wrap` | the path and scope checks of `ASGIMiddleware` for each request | 80, 2.1 % | public: overrides `__call__` |
| `explain_refusals` | nothing; names the fix where the application has no plugin | - | the function is missing |
| `refuse_guards` | nothing; refuses our guards in an application without the plugin | - | public: `on_registration` |

The first three rely on private code, which may change in any version. So its source is compared with the reviewed source: with
any difference, in a patched function too, Litestar's own code runs. A bypass that gains less than 1 % is removed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Iterator
from copy import copy
from enum import Enum
from functools import cache, partial, wraps
from hashlib import sha256
from importlib import import_module
from itertools import chain
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.datastructures import FormMultiDict
from litestar.enums import ScopeType
from litestar.exceptions import ClientException, ImproperlyConfiguredException, LitestarException, SerializationException
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.response import Response
from litestar.routes import BaseRoute, HTTPRoute, WebSocketRoute
from litestar.serialization import get_serializer
from litestar.types import ASGIApp, Empty, Receive, Scope, Send

from session_core.asgi.middleware import SCOPE_KEY
from session_core.errors import ConfigurationError
from session_core.litestar.access import application_in
from session_core.litestar.dependency import provide_session
from session_core.litestar.routes import session_guards
from session_core.sessions.handle import SessionHandle
from session_core.sessions.manager import SessionManager

__all__ = (
    "ERROR_HANDLING", "HANDLING", "INJECTION", "ErrorGuard", "call_directly", "digest_of", "enabled", "error_guard_of",
    "explain_refusals", "inject_directly", "is_known", "refuse_guards", "take_session", "wrap",
)  # fmt: skip

enabled = True
"""Set to False before the application is built: Litestar then does everything itself."""

_NAME: Final = "session"
_INJECTED: Final = ((SessionHandle, _NAME, "Session[...]"), (SessionManager, "sessions", "Sessions"))
"""What the plugin injects, the names of the parameters, and their annotations."""
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
"""Private code that the bypass of injection relies on, with the digests of reviewed sources. Extended for each new Litestar."""
ERROR_HANDLING: Final = {
    f"{_ERRORS}:ExceptionHandlerMiddleware.__init__": {"5ed9397cb34da00c"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.__call__": {"a579d936179fdd30"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.handle_request_exception": {"018570234ce274e4"},
    f"{_ERRORS}:ExceptionHandlerMiddleware.handle_websocket_exception": {"7719540ee6d69c79"},
}
"""Private code that the bypass of the exception middleware relies on."""
_SIGNATURE: Final = "litestar._signature.model:SignatureModel"
_ROUTE: Final = "litestar.routes.http:HTTPRoute"
_HANDLER: Final = "litestar.handlers.http_handlers.base:HTTPRouteHandler"
_MAKES: Final = "litestar.handlers.http_handlers._utils"
_RESPONSE: Final = "litestar.response.base"
_JSON: Final = "litestar.serialization.msgspec_hooks"
HANDLING: Final = {
    **{name: digests for name, digests in INJECTION.items() if name.startswith((f"{_KWARGS}.kwargs_model:", _ROUTE))},
    f"{_SIGNATURE}.parse_values_from_connection_kwargs": {"056ff6aa1ef79c26"},
    "litestar.handlers.base:BaseRouteHandler.authorize_connection": {"38b2c6f9f875778e"},
    f"{_HANDLER}.to_response": {"2ef5f1c9333321fa"},
    f"{_HANDLER}.get_response_handler": {"31007c3c606ebfd6"},
    f"{_HANDLER}.on_registration": {"a3dd13e6ea9bc903"},
    f"{_MAKES}:create_data_handler": {"e2d4aa0822cf01b5"},
    f"{_MAKES}:normalize_headers": {"0c82bc7f7f1a268e"},
    "litestar.datastructures.headers:MutableScopeHeaders.add": {"78aca179c8108d6e"},
    f"{_RESPONSE}:Response.__init__": {"2a77852975cf16b1"},
    f"{_RESPONSE}:Response.render": {"23ecd5e59f0395d8"},
    f"{_RESPONSE}:Response.to_asgi_response": {"9af785a1556f73ae"},
    f"{_RESPONSE}:ASGIResponse.__init__": {"26ab8f6609e66873"},
    f"{_RESPONSE}:ASGIResponse.__call__": {"941003bf3bdc7c3b"},
    f"{_RESPONSE}:ASGIResponse.start_response": {"0349550d99a364d7"},
    f"{_RESPONSE}:ASGIResponse.encode_headers": {"fff660f6aa19e0e0"},
    f"{_RESPONSE}:ASGIResponse.send_body": {"8e88de79f99101d6"},
    f"{_RESPONSE}:ASGIResponse.after_response": {"a0b5cbe28403cc98"},
    f"{_JSON}:encode_json": {"f56b47ed732d83ce"},
    f"{_JSON}:get_serializer": {"7a4591b39a5dcf34"},
}
"""Private code that the direct call relies on."""
_DATA_HANDLER: Final = "create_data_handler.<locals>.handler"
_BODILESS: Final = frozenset({204, 304})
_OK: Final = 200
_JSON_TYPE: Final = re.compile(r"application/(?:[\w.-]+\+)?json")
_SET_BY_LITESTAR: Final = frozenset({"content-type", "content-length"})


def is_known(relied_on: dict[str, set[str]]) -> bool:
    """Whether all code that a bypass relies on was reviewed."""
    return all(digest_of(name) in digests for name, digests in relied_on.items())


def digest_of(name: str) -> str | None:
    """Return the digest of the source of a function, `module:path`, or None if it or its source does not exist."""
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
    """Make the handlers of a route get the session with their parameters, before other dependencies; return whether they do.

    Changes nothing if `session` is another dependency, or if Litestar's source differs.
    """
    if not enabled or not is_known(INJECTION):
        return False
    try:
        changes = [_without_session(model) for model in _models_of(route)]
    except Exception:  # noqa: BLE001 - whatever is different, Litestar injects the session itself
        return False
    # Only now, so that a route is changed completely or not at all.
    for model, batches, extractors in filter(None, changes):
        model.dependency_batches, model.extractors = batches, extractors
    return True


def _models_of(route: Any) -> list[Any]:  # noqa: ANN401 - Litestar's own, and private
    if isinstance(route, HTTPRoute):
        return [model for _, model in route.route_handler_map.values()]
    return [route.handler_parameter_model] if isinstance(route, WebSocketRoute) else []


def _without_session(model: Any) -> tuple[Any, list[Any], list[Any]] | None:  # noqa: ANN401 - likewise
    """Return the model without our session, or None if it takes none. Raises any error for an unknown kind of model."""
    batches: list[set[Any]] = model.dependency_batches
    for dependency in chain.from_iterable(batches):
        if dependency.key == _NAME and dependency.provide.dependency is provide_session:
            return model, [rest for batch in batches if (rest := batch - {dependency})], [take_session, *model.extractors]
    return None


class _Done:
    """A completed awaitable: a coroutine would double the cost for a visitor's request."""

    def __await__(self) -> Iterator[None]:
        return iter(())


_DONE: Final = _Done()


def take_session(values: dict[str, Any], connection: ASGIConnection[Any, Any, Any, Any]) -> _Done | Coroutine[Any, Any, object]:
    """Put the session of a request into the values for its handler; await the result, which loads it."""
    scope: Any = connection.scope
    session: SessionHandle[Any] = scope[SCOPE_KEY]
    values[_NAME] = session
    return _DONE if session.begin_as_visitor() else session.load()


def call_directly(app: ASGIApp) -> ASGIApp:
    """Return what calls a route's handler and sends what it returns in one coroutine, in place of Litestar's ten.

    `app` itself is returned if it is no route, or if Litestar's source differs. Left to Litestar are handlers with other
    dependencies than the session, with a cache, or with hooks before the request or after the response. Litestar also makes the
    response, unless it is a dictionary, a list or a `msgspec.Struct` that goes out as JSON, without a cookie or background task
    of the route, and can be encoded.
    """
    route: Any = getattr(app, "__self__", None)
    if type(route) is not HTTPRoute or getattr(app, "__func__", None) is not HTTPRoute.handle:
        return app
    if not enabled or not is_known(HANDLING):
        return app
    calls: dict[str, Any] = {}

    def handle(scope: Any, receive: Receive, send: Send) -> Any:  # noqa: ANN401 - a scope that is read as any
        method: Any = scope["method"]
        call = calls.get(method)
        if call is None:  # what all layers say is known only now
            handler, model = route.route_handler_map[method]
            call = calls[method] = _call_of(handler, model) or app
        return call(scope, receive, send)

    return handle


def _call_of(handler: Any, model: Any) -> Callable[..., Any] | None:  # noqa: ANN401 - Litestar's own, and private
    """Return the direct call of a handler, or None: something comes in between."""
    from litestar.utils.scope.state import ScopeState  # noqa: PLC0415 - private, and known to be there by now

    if model.dependency_batches or handler.cache or handler.resolve_before_request() or handler.resolve_after_response():
        return None
    function, is_sync, request_of = handler.fn, handler.has_sync_callable, handler.resolve_request_class()
    guarded, signature = bool(handler.resolve_guards()), handler.signature_model
    # Nothing that has to be converted, and no use for a request object.
    alone = not guarded and model.extractors == [take_session] and list(signature._fields) == ["session"]
    status, encode, headers = handler.status_code, _encoder_of(handler), _headers_of(handler)

    async def call(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ANN401 - a scope that is read as any
        request: Any = None if alone else request_of(scope=scope, receive=receive, send=send)
        if guarded:
            await handler.authorize_connection(connection=request)
        try:
            if alone:
                session: SessionHandle[Any] = scope[SCOPE_KEY]
                if not session.begin_as_visitor():
                    await session.load()
                data = function(session=session) if is_sync else await function(session=session)
            else:
                values = await _values_of(model, request)
                values = signature.parse_values_from_connection_kwargs(connection=request, kwargs=values)
                data = function(**values) if is_sync else await function(**values)
            if (body := encode(data)) is None:
                request = request or request_of(scope=scope, receive=receive, send=send)
                response = await handler.to_response(app=scope["litestar_app"], data=data, request=request)
                await response(scope, receive, send)
            else:
                sized = [*headers, (b"content-length", b"%d" % len(body))]
                await send({"type": "http.response.start", "status": status, "headers": sized})
                await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            if not alone and (form := ScopeState.from_scope(scope).form) is not Empty:
                await FormMultiDict.from_form_data(form).close()

    return call


async def _values_of(model: Any, request: Any) -> dict[str, Any]:  # noqa: ANN401 - Litestar's own, and private
    """Return what the parameters of a handler are converted from."""
    try:
        values: dict[str, Any] = await model.to_kwargs(connection=request)
    except SerializationException as error:
        raise ClientException(str(error)) from error
    if values.get("data") is Empty:
        del values["data"]
    return values


def _encoder_of(handler: Any) -> Callable[[Any], bytes | None]:  # noqa: ANN401 - Litestar's own, and private
    """Return what encodes the data that a handler returns; it returns None for what Litestar has to make a response of."""
    if (
        any(layer.after_request for layer in handler.ownership_layers)
        or handler.background
        or any(not cookie.documentation_only for cookie in handler.resolve_response_cookies())
        or _SET_BY_LITESTAR & {name.lower() for name, _ in _declared_headers(handler)}
        or handler.resolve_response_class() is not Response
        or Response.type_encoders
        or handler.resolve_return_dto() is not None
        or handler.get_response_handler().__qualname__ != _DATA_HANDLER
        or handler.status_code < _OK
        or handler.status_code in _BODILESS
        or not _JSON_TYPE.fullmatch(_media_type_of(handler))
    ):
        return lambda _: None
    encoded = msgspec.json.Encoder(enc_hook=get_serializer(handler.resolve_type_encoders())).encode

    def encode(data: Any) -> bytes | None:  # noqa: ANN401 - whatever a handler returns
        kind = type(data)
        if kind is dict or kind is list or (isinstance(data, msgspec.Struct) and not hasattr(kind, "__await__")):
            try:
                return encoded(data)
            except Exception:  # noqa: BLE001 - Litestar raises it again
                return None
        return None

    return encode


def _headers_of(handler: Any) -> list[tuple[bytes, bytes]]:  # noqa: ANN401 - Litestar's own, and private
    """Return the headers of all responses of a handler."""
    named = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in _declared_headers(handler)]
    return [*named, (b"content-type", _media_type_of(handler).encode("latin-1"))]


def _declared_headers(handler: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - Litestar's own, and private
    return [(header.name, header.value) for header in handler.resolve_response_headers() if not header.documentation_only]


def _media_type_of(handler: Any) -> str:  # noqa: ANN401 - Litestar's own, and private
    found = handler.media_type
    return str(found.value if isinstance(found, Enum) else found or "")


class ErrorGuard:
    """Litestar's exception handler, called only after an error."""

    def __init__(self, handler: Any) -> None:  # noqa: ANN401 - Litestar's own, and private
        self._handler = handler
        self.app: ASGIApp = handler.app

    async def answer(self, error: Exception, scope: Scope, receive: Receive, send: Send, *, started: bool) -> None:
        """Answer an error of `app` as Litestar's exception handler does. Raises what that raises.

        `started`: a response has begun. Litestar's handler would have seen that, even if outer middleware holds the response
        back.
        """
        if started and scope["type"] == ScopeType.HTTP:
            msg = "Exception caught after response started"
            raise LitestarException(msg) from error

        raised = [error]

        async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
            # Clear the reference: the traceback of the error holds this frame, and a reference cycle would keep the request
            # alive.
            raise raised.pop()

        handler = copy(self._handler)
        handler.app = fail
        await handler(scope, receive, send)


def error_guard_of(app: ASGIApp) -> ErrorGuard | None:
    """Return a guard for `app`, or None if `app` is another middleware or Litestar's source differs."""
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
    """Make Litestar's error for a session without a plugin name the fix: without the plugin no other code of ours runs."""
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
    """Return the fix for a refused signature, or None if it takes no session."""
    function = next((value for value in values if isinstance(value, str)), "a handler")
    provided = next((value for value in values if isinstance(value, set | frozenset)), frozenset())
    for value in values:
        parameters = getattr(value, "parameters", None)
        for name, field in parameters.items() if isinstance(parameters, dict) else ():
            for kind, right, annotation in _INJECTED if name not in provided else ():
                if not field.is_subclass_of(kind):
                    continue
                if name != right:
                    return f"{function} takes {annotation} as `{name}`; the parameter must be named `{right}`"
                return (
                    f"{function} takes `{right}: {annotation}`, but the application has no SessionPlugin: "
                    "Litestar(plugins=[SessionPlugin(SessionConfig(AppSession))])"
                )
    return None


def refuse_guards() -> None:
    """Refuse a handler with a guard of ours when it is registered in an application without the plugin.

    Otherwise its first request finds the mistake.
    """
    register = BaseRouteHandler.on_registration

    @wraps(register)
    def registered(self: BaseRouteHandler, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - of any version of Litestar
        register(self, *arguments, **named)
        app = next((each for each in (*arguments, *named.values()) if isinstance(each, Litestar)), None)
        automatic = getattr(self, "http_methods", None) == {"OPTIONS"}  # Litestar's own: a name that the owner does not know
        if enabled and app is not None and not automatic and session_guards(self):
            try:
                application_in(app)
            except ConfigurationError as error:
                msg = f"{self} has a guard of session_core, but {error}"
                raise ConfigurationError(msg) from None

    BaseRouteHandler.on_registration = registered  # type: ignore[method-assign]


explain_refusals()
refuse_guards()
