"""Calls a handler and sends what it returns in one coroutine, in place of Litestar's ten; a bypass like those of `internals`.

Left to Litestar are handlers with other dependencies than the session, with a cache, or with hooks before the request or after
the response. What a direct call returns is made a response by Litestar as well, unless it is a dictionary, a list or a
`msgspec.Struct` that goes out as JSON, without a cookie or background task of the route, and can be encoded.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar.datastructures import FormMultiDict
from litestar.exceptions import ClientException, SerializationException
from litestar.response import Response
from litestar.routes import HTTPRoute
from litestar.serialization import get_serializer
from litestar.types import Empty

from session_core.asgi.middleware import SCOPE_KEY
from session_core.litestar import internals

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.types import ASGIApp, Receive, Send

    from session_core.sessions.handle import SessionHandle

__all__ = ("HANDLING", "call_directly")

_KWARGS: Final = "litestar._kwargs.kwargs_model:KwargsModel"
_SIGNATURE: Final = "litestar._signature.model:SignatureModel"
_ROUTE: Final = "litestar.routes.http:HTTPRoute"
_HANDLER: Final = "litestar.handlers.http_handlers.base:HTTPRouteHandler"
_MAKES: Final = "litestar.handlers.http_handlers._utils"
_RESPONSE: Final = "litestar.response.base"
_JSON: Final = "litestar.serialization.msgspec_hooks"
HANDLING: Final = {
    **{name: digests for name, digests in internals.INJECTION.items() if name.startswith((_KWARGS, _ROUTE))},
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
"""What this relies on, with the digests of known texts."""
_DATA_HANDLER: Final = "create_data_handler.<locals>.handler"
_BODILESS: Final = frozenset({204, 304})
_OK: Final = 200
_JSON_TYPE: Final = re.compile(r"application/(?:[\w.-]+\+)?json")
_SET_BY_LITESTAR: Final = frozenset({"content-type", "content-length"})


def call_directly(app: ASGIApp) -> ASGIApp:
    """Return what serves the requests of a route: `app` itself where it is none, or Litestar differs in what this relies on."""
    route: Any = getattr(app, "__self__", None)
    if type(route) is not HTTPRoute or getattr(app, "__func__", None) is not HTTPRoute.handle:
        return app
    if not internals.enabled or not internals.is_known(HANDLING):
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
    alone = not guarded and model.extractors == [internals.take_session] and list(signature._fields) == ["session"]
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
