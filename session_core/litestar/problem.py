"""Litestar responses to errors of the library (see `session_core.asgi.answers`)."""

from __future__ import annotations

from typing import Any

from litestar.response import Response

from session_core.asgi import answers, web
from session_core.asgi.answers import error_headers, is_browser_navigation, problem, return_to, wants_page
from session_core.config import SessionConfig
from session_core.errors import SessionCoreError

__all__ = (
    "error_headers", "error_response", "is_browser_navigation", "litestar_response", "login_redirect", "problem", "return_to",
    "wants_page",
)  # fmt: skip


def login_redirect(connection: web.HasHeaders, error: SessionCoreError, config: SessionConfig[Any]) -> Response[Any] | None:
    """Return the redirect that sends a person to the login and back here, or None when another response is due."""
    response = answers.login_redirect(connection, error, config)
    return None if response is None else litestar_response(response)


def error_response(connection: web.HasHeaders, error: SessionCoreError, config: SessionConfig[Any]) -> Response[Any]:
    """Return the response to an error in a form that the client accepts."""
    return litestar_response(answers.error_response(connection, error, config))


def litestar_response(response: web.Response) -> Response[Any]:
    """Return a response as Litestar's."""
    media_type = response.media_type.partition(";")[0]  # Litestar adds the charset
    return Response(response.body, status_code=response.status_code, media_type=media_type, headers=response.headers)
