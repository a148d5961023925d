"""Limits the forms of one client address per minute; JSON routes and the logout have no such limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from app.web.request_context import current_request
from session_core import SessionPlugin

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

    from app.services import Services

__all__ = ("limit_forms",)

_SHARE: Final = 20
"""Forms that a worker reserves at once: one in twenty costs a store call."""


async def limit_forms(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Count a form; a guard of all pages. Raises `TooManyRequestsError`."""
    del handler
    if connection.scope.get("method") == "POST":
        services: Services = connection.app.state["services"]
        limit = services.settings.limit_forms
        limits = connection.app.plugins.get(SessionPlugin).limits
        await limits.take("form", current_request.get().ip, limit=limit, share=min(_SHARE, max(1, limit // 30)))
