"""Error responses: a page for browsers or problem+json for programs (RFC 9457), with the same status and title."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import structlog
from litestar.exceptions import HTTPException, ValidationException
from litestar.response import Response
from sqlalchemy.exc import SQLAlchemyError

from app.data.database import DatabaseUnavailableError
from app.web.request_context import current_request
from session_core import SessionPlugin
from session_core.errors import OidcError, SessionCoreError, SessionDataError
from session_core.litestar.problem import error_headers, login_redirect, problem, wants_page

if TYPE_CHECKING:
    from litestar import Request
    from litestar.types import ExceptionHandlersMap

    from app.services import Services

__all__ = ("exception_handlers",)

_SERVER_ERROR: Final = 500
_CLIENT_LEFT: Final = "client disconnected"
_ADVICE: Final = {
    400: "The request was not understood. Nothing was changed.",
    401: "Please log in, then try again.",
    403: "You do not have permission, or the request came from another site. Nothing was changed.",
    404: "This page does not exist, or no longer exists.",
    405: "This address does not accept this kind of request.",
    409: (
        "The change was not saved: another request, perhaps from another tab, changed the same value first. "
        "Load the page again to see the newest state."
    ),
    413: "The request was too large.",
    429: "There were too many requests. Please wait a moment.",
    502: "The identity provider did not answer correctly. Your session is unchanged.",
    503: "A service that this page needs is not available right now. You are still logged in; please try again shortly.",
    504: "The identity provider did not answer in time. Your session is unchanged.",
}
_UNKNOWN: Final = "An error occurred on our side. It has been logged."
_LOGIN_FAILED: Final = (
    "Nothing was changed, and an earlier session still exists. A login needs cookies: if your browser blocks them, please allow "
    "them for this site. Then start again in the same window, at {url}."
)

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("app.web.errors")


def exception_handlers() -> ExceptionHandlersMap:
    """Return the handlers for the whole application."""
    return {
        SessionCoreError: on_session_core_error,
        SQLAlchemyError: on_database_error,
        DatabaseUnavailableError: on_database_error,
        HTTPException: on_http_error,
        RecursionError: on_deep_nesting,
        Exception: on_unexpected_error,
    }


def on_session_core_error(request: Request[Any, Any, Any], error: SessionCoreError) -> Response[Any]:
    """Answer an error of the library; a browser is redirected to the login if that helps."""
    config = request.app.plugins.get(SessionPlugin).config
    redirect = login_redirect(request, error, config)
    if redirect is not None:
        return redirect
    # The request had invalid session data: the message names the field, never the value.
    status = 400 if isinstance(error, SessionDataError) else error.status_code
    details = {**problem(error), "status": status}
    if isinstance(error, SessionDataError) and str(error):
        details["detail"] = str(error)
    headers = error_headers(error, request, config)
    if not isinstance(error, OidcError):
        return _answer(request, details, headers=headers)
    base = config.base.at(request.scope)
    again = base.of("/auth/login")
    if error.return_to not in {None, base.of("/")}:
        again += f"?{urlencode({'next': error.return_to})}"
    return _answer(request, details, advice=_LOGIN_FAILED.format(url=base.url), again=again, headers=headers)


def on_database_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Answer 503: users and audit trail are unavailable. No session ends."""
    _log.error("database unavailable", error=type(error).__name__)
    details = {"type": "about:blank", "title": "The database is unavailable", "status": 503, "code": "database_unavailable"}
    return _answer(request, details, headers={"retry-after": "1"})


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Answer Litestar's own errors (400, 404, 405, 413, ...)."""
    status = error.status_code
    if status >= _SERVER_ERROR:
        if _CLIENT_LEFT in error.detail:  # Litestar has no separate class for it
            return _answer(request, {"type": "about:blank", "title": HTTPStatus.BAD_REQUEST.phrase, "status": 400})
        return on_unexpected_error(request, error)
    details: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if isinstance(error, ValidationException):
        # The invalid fields and their errors; Litestar's `detail` would repeat the address.
        details["detail"] = "The request does not match what this address accepts."
        details["errors"] = error.extra
    return _answer(request, details, headers=dict(error.headers or {}))


def on_deep_nesting(request: Request[Any, Any, Any], error: RecursionError) -> Response[Any]:
    """Answer 400 to a body nested too deeply to decode, which Litestar does not handle."""
    if "deserializing" not in str(error):
        return on_unexpected_error(request, error)
    details = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "The body is nested too deeply."}
    return _answer(request, details)


def on_unexpected_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Answer 500 without the reason, which is logged."""
    _log.error("unexpected error", error=type(error).__name__, exc_info=error)
    details = {"type": "about:blank", "title": "Internal server error", "status": _SERVER_ERROR}
    return _answer(request, details)


def _answer(
    request: Request[Any, Any, Any],
    details: dict[str, Any],
    *,
    advice: str | None = None,
    again: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    status, request_id = details["status"], current_request.get().request_id
    if wants_page(request):
        services: Services = request.app.state["services"]
        response: Response[Any] = services.pages.render(
            request,
            "error.html",
            status=status,
            title=details["title"],
            advice=advice or _ADVICE.get(status, _UNKNOWN),
            code=status,
            again=again,
            request_id=request_id,
        )
    else:
        response = Response({**details, "request_id": request_id}, status_code=status, media_type="application/problem+json")
    response.headers.update({"cache-control": "no-store", **(headers or {})})
    return response
