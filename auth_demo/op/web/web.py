"""HTTP code shared by all handlers: strict parsing, cookies, headers and error responses."""

import logging
from typing import Any, Final, TypeAlias, cast
from urllib.parse import urlsplit

from litestar import HttpMethod, Litestar, Request, Response
from litestar.datastructures import Cookie, MutableScopeHeaders
from litestar.enums import MediaType
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from auth_demo.op.provider import EmbeddedOp
from auth_demo.op.state.records import OpSession
from auth_demo.op.state.sessions import SESSION_COOKIE
from auth_demo.op.web.pages import content_security_policy, render_error
from auth_demo.op.web.parameters import MAX_PARAMETER_BYTES, ParameterError, Parameters, parse_parameters

__all__ = (
    "READ",
    "OpRequest",
    "add_security_headers",
    "expired_cookie",
    "json_error",
    "new_cookie",
    "on_http_error",
    "on_parameter_error",
    "on_unexpected_error",
    "op_of",
    "query_parameters",
    "read_form",
    "refuse_foreign_host",
    "session_of",
)

OpRequest: TypeAlias = Request[Any, Any, Any]

READ: Final = (HttpMethod.GET, HttpMethod.HEAD)
"""The methods of a route without effects."""
_JSON_PATHS: Final = frozenset({"/token", "/revoke", "/userinfo", "/jwks.json"})
_FORM: Final = "application/x-www-form-urlencoded"

_log = logging.getLogger(__name__)


def op_of(source: OpRequest | Litestar) -> EmbeddedOp:
    """Return the provider behind an application made by `create_op`, or behind one of its requests."""
    app = source if isinstance(source, Litestar) else source.app
    return cast("EmbeddedOp", app.state["op"])


def session_of(request: OpRequest) -> OpSession | None:
    """Return the browser's live provider session."""
    return op_of(request).sessions.find(request.cookies.get(SESSION_COOKIE))


def query_parameters(request: OpRequest) -> Parameters:
    """Return the query's parameters; raises `ParameterError`."""
    return parse_parameters(request.scope["query_string"])


async def read_form(request: OpRequest, *, limit: int = MAX_PARAMETER_BYTES) -> Parameters:
    """Return the form body's parameters; raises `ParameterError` for another content type or a malformed body."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != _FORM:
        message = f"the content type must be {_FORM}"
        raise ParameterError(message)
    return parse_parameters(await request.body(), limit=limit)


def new_cookie(request: OpRequest, key: str, value: str, *, max_age: int | None = None) -> Cookie:
    """Return a host-only cookie no script can read; Secure where the issuer is https."""
    secure = op_of(request).settings.issuer.startswith("https:")
    return Cookie(key=key, value=value, max_age=max_age, httponly=True, secure=secure, samesite="lax", path="/")


def expired_cookie(request: OpRequest, key: str) -> Cookie:
    """Return the cookie that deletes `key`, with the attributes it was set with."""
    return new_cookie(request, key, "", max_age=0)


def json_error(status: int, error: str, description: str) -> Response[Any]:
    """Return an RFC 6749 5.2 error body."""
    return Response({"error": error, "error_description": description}, status_code=status)


def _error(request: OpRequest, status: int, title: str, detail: str) -> Response[Any]:
    if request.scope["path"] in _JSON_PATHS:
        return json_error(status, "invalid_request", detail)
    return render_error(status, title, detail)


def on_parameter_error(request: OpRequest, error: ParameterError) -> Response[Any]:
    """Answer 400 to a malformed request; the error's text never repeats the input."""
    return _error(request, 400, "This request cannot be read", f"{str(error).capitalize()}.")


def on_http_error(request: OpRequest, error: HTTPException) -> Response[Any]:
    """Answer Litestar's own errors (404, 405, 413, ...) without its details, which may repeat the input."""
    details = {404: "There is no such page.", 405: "This address does not accept this method.", 413: "Too large."}
    detail = details.get(error.status_code, "The request was refused.")
    response = _error(request, error.status_code, "Not possible", detail)
    for name, value in (error.headers or {}).items():
        response.headers.setdefault(name, value)
    return response


def on_unexpected_error(request: OpRequest, error: Exception) -> Response[Any]:
    """Answer 500 without a trace for the browser; the log gets the place, never the values."""
    _log.error("unexpected %s at %r", type(error).__name__, request.scope["path"], exc_info=error)
    return _error(request, 500, "Something went wrong", "The provider failed; see its log.")


def refuse_foreign_host(request: OpRequest) -> Response[Any] | None:
    """Refuse requests addressed to another name.

    DNS rebinding: a web page whose name suddenly resolves to 127.0.0.1 could otherwise read our answers.
    """
    expected = urlsplit(op_of(request).settings.issuer).netloc.lower()
    if request.headers.get("host", "").lower() == expected:
        return None
    return Response("This provider answers to its own address only.\n", status_code=421, media_type=MediaType.TEXT)


async def add_security_headers(message: Message, scope: Scope) -> None:
    """Add the headers every answer carries, 404 and 405 included (ASVS 3.4); a page's own values stay."""
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    if scope.get("method") == "HEAD" and headers.get("content-length") == "0":
        del headers["content-length"]  # not what GET would send (RFC 9110 8.6)
    static = scope["path"].startswith("/static/")
    for name, value in (
        ("Cache-Control", "public, max-age=300" if static else "no-store"),
        ("Content-Security-Policy", content_security_policy()),
        ("X-Content-Type-Options", "nosniff"),
        # Under `no-referrer` our own forms would send `Origin: null`, as forms of other sites can.
        ("Referrer-Policy", "same-origin"),
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ):
        headers.setdefault(name, value)
