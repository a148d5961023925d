"""Error responses: a page for browsers or problem+json for programs (RFC 9457), with the same status."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import structlog
from litestar.exceptions import HTTPException, ValidationException
from litestar.response import Response
from litestar.response.base import ASGIResponse

from app.data.database import DatabaseUnavailableError
from app.data.users import AccountDisabledError, User
from app.web.explanations import Act, explain
from app.web.form_user import SEEN
from app.web.request_context import current_request
from session_core import SessionHandle, SessionPlugin, loaded_session_of, session_of
from session_core.errors import (
    CrossSiteRequestError,
    ForbiddenError,
    ImpersonationForbiddenError,
    OidcError,
    SessionCoreError,
    SessionDataError,
    SessionGoneError,
    StoreUnavailableError,
)
from session_core.litestar.problem import error_headers, login_redirect, problem, return_to, wants_page

if TYPE_CHECKING:
    from litestar import Request
    from litestar.types import ExceptionHandlersMap, Receive, Scope, Send

    from app.services import Services
    from app.session_data import AppSession

__all__ = ("exception_handlers",)

_SERVER_ERROR: Final = 500
_CLIENT_LEFT: Final = "client disconnected"
_SECRET: Final = re.compile("pass|secret|token|code", re.IGNORECASE)
"""Names of fields that are not shown again."""
_PATIENCE: Final = 1.0
"""Seconds for what an error page shows besides the error."""

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("app.web.errors")


def exception_handlers() -> ExceptionHandlersMap:
    """Return the handlers for the whole application."""
    return {
        SessionCoreError: on_session_core_error,
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
    return _answer(request, error, details, headers=error_headers(error, request, config))


def on_database_error(request: Request[Any, Any, Any], error: DatabaseUnavailableError) -> Response[Any]:
    """Answer 503: users and audit trail are unavailable. No session ends."""
    _log.error("database unavailable", reason=str(error))
    return _answer(request, error, problem(error), headers={"retry-after": "1"})


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Answer Litestar's own errors (400, 404, 405, 413, ...)."""
    status = error.status_code
    if status == _SERVER_ERROR:  # a mistake; 503 and the like are raised on purpose
        if _CLIENT_LEFT not in error.detail:  # Litestar has no separate class for it
            return on_unexpected_error(request, error)
        status = 400
    details: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if isinstance(error, ValidationException):
        # The invalid fields and their errors; Litestar's `detail` would repeat the address.
        details["detail"] = "The request does not match what this address accepts."
        details["errors"] = error.extra
    return _answer(request, error, details, headers=dict(error.headers or {}))


def on_deep_nesting(request: Request[Any, Any, Any], error: RecursionError) -> Response[Any]:
    """Answer 400 to a body nested too deeply to decode, which Litestar does not handle."""
    if "deserializing" not in str(error):
        return on_unexpected_error(request, error)
    details = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "The body is nested too deeply."}
    return _answer(request, error, details)


def on_unexpected_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Answer 500 without the reason, which is logged."""
    _log.error("unexpected error", error=type(error).__name__, exc_info=error)
    details = {"type": "about:blank", "title": "Internal server error", "status": _SERVER_ERROR}
    return _answer(request, error, details)


def _answer(
    request: Request[Any, Any, Any], error: Exception, details: dict[str, Any], *, headers: dict[str, str] | None = None
) -> Response[Any]:
    # Under the id that the page shows. The reason is not for clients: it can say how the provider fails.
    reason = {"reason": error.reason} if isinstance(error, OidcError) else {}
    _log.info("error answered", status=details["status"], error=details.get("code", type(error).__name__), **reason)
    response: Response[Any]
    if wants_page(request, bearer=request.app.plugins.get(SessionPlugin).config.bearer):
        response = _ErrorPage(error, details)
    else:
        content = {**details, "request_id": current_request.get().request_id}
        response = Response(content, status_code=details["status"], media_type="application/problem+json")
    response.headers.update({"cache-control": "no-store", **(headers or {})})
    return response


class _ErrorPage(Response[str]):
    """The page of an error. It is rendered when it is sent: an exception handler cannot wait for session and user."""

    def __init__(self, error: Exception, details: dict[str, Any]) -> None:
        super().__init__("", status_code=details["status"])
        self._error = error
        self._details = details

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **given: Any) -> ASGIResponse:  # noqa: ANN401
        """Return what renders the page and sends it."""
        del app

        async def send_page(scope: Scope, receive: Receive, send: Send) -> None:
            page = await _page(request, self._error, self._details)
            page.headers.update(self.headers)
            await page.to_asgi_response(app=None, request=request, **given)(scope, receive, send)

        return _Later(send_page)


class _Later(ASGIResponse):
    """A response that another application sends."""

    def __init__(self, send_page: Any) -> None:  # noqa: ANN401 - an ASGI application
        super().__init__()
        self._send_page = send_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await self._send_page(scope, receive, send)


async def _page(request: Request[Any, Any, Any], error: Exception, details: dict[str, Any]) -> Response[str]:
    services: Services = request.app.state["services"]
    base = request.app.plugins.get(SessionPlugin).config.base.at(request.scope)
    session, user = await _visitor(request, services, error)
    if isinstance(error, ForbiddenError) and user is not None and user.disabled:
        error = AccountDisabledError()
        details = {**details, "title": error.title}
    elif isinstance(error, ForbiddenError) and session is not None and session.actor is not None:
        error = ImpersonationForbiddenError()  # the administrator may have the right that the user lacks
        details = {**details, "title": error.title}
    act = _act(request.method, base.local(request.scope["path"]))
    explanation = explain(error, details["status"], act=act, url=base.url, has_cookies="cookie" in request.headers)
    asked = {"next": error.return_to, "provider": error.provider} if isinstance(error, SessionCoreError) else {}
    if explanation.step == "log out" and user is None:  # the provider would choose the refused account again
        asked["prompt"] = "login"
    query = urlencode({name: value for name, value in asked.items() if value not in {None, base.of("/")}})
    return services.pages.render(
        request,
        "error.html",
        status=details["status"],
        session=session,
        user=user,
        code=details["status"],
        title=explanation.title or details["title"],
        advice=explanation.advice,
        step=explanation.step,
        again=base.of("/auth/login") + (f"?{query}" if query else ""),
        sent=await _sent_form(request, error) if act == "send" else [],
        is_refused=details["status"] < _SERVER_ERROR,
        back_to=return_to(request, base),
        request_id=current_request.get().request_id,
    )


async def _visitor(
    request: Request[Any, Any, Any], services: Services, error: Exception
) -> tuple[SessionHandle[AppSession] | None, User | None]:
    """Return session and user as far as they can be known: what has failed is not asked again."""
    session = loaded_session_of(request)
    try:
        async with asyncio.timeout(_PATIENCE):
            if session is None and not isinstance(error, StoreUnavailableError | CrossSiteRequestError):
                session = await session_of(request)
            identity = session.identity if session is not None else None
            if identity is None or isinstance(error, SessionGoneError | DatabaseUnavailableError):
                return session, None
            return session, await services.users.find(identity.user_key)
    except Exception:  # noqa: BLE001 - the page shows the first error, without the user
        return session, None


def _act(method: str, path: str) -> Act:
    if path.startswith("/auth/"):
        return "log out" if path.startswith("/auth/logout") else "log in"
    return "send" if method == "POST" else "read"


async def _sent_form(request: Request[Any, Any, Any], error: Exception) -> list[tuple[str, str]]:
    """Return what a person sent with a form that failed, so that nothing typed is lost."""
    if isinstance(error, CrossSiteRequestError):
        return []
    try:
        async with asyncio.timeout(_PATIENCE):
            items = (await request.form()).multi_items()
            typed = [(name, value) for name, value in items if isinstance(value, str) and value and not name.startswith(SEEN)]
            return [(name, value) for name, value in typed if not _SECRET.search(name)]
    except Exception:  # noqa: BLE001 - the form may be what was wrong
        return []
