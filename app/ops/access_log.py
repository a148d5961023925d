"""One line and one measurement for each request: method, path, status, time; never a query, header, cookie or body.

Outermost: everything inside can tell which request it belongs to (`current_request`).
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from litestar.enums import ScopeType

from app.web.request_context import RequestContext, client_address, current_request, user_agent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from app.ops.metrics import Metrics
    from app.settings.settings import Network

__all__ = ("AccessLog",)

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("app.access")
_QUIET = ("/static/", "/health/", "/metrics")
_SERVER_ERROR = 500
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class AccessLog:
    """ASGI wrapper around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, trusted_proxies: Sequence[Network], *, loud: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._trusted = trusted_proxies
        self._loud = loud

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request and say how it went."""
        if scope["type"] not in {ScopeType.HTTP, ScopeType.WEBSOCKET}:
            await self._app(scope, receive, send)
            return
        request = RequestContext(secrets.token_hex(8), client_address(scope, self._trusted), user_agent(scope))
        token = current_request.set(request)
        started = time.perf_counter()
        status = _SERVER_ERROR

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            with structlog.contextvars.bound_contextvars(request_id=request.request_id):
                try:
                    await self._app(scope, receive, send_noting_status)
                finally:
                    self._tell(scope, request, status, time.perf_counter() - started)
        finally:
            current_request.reset(token)

    def _tell(self, scope: Scope, request: RequestContext, status: int, seconds: float) -> None:
        method = cast("Any", scope).get("method", "WS")
        method = method if method in _METHODS or method == "WS" else "other"
        # The route's pattern, not the path: a client can invent as many paths as it likes.
        route = cast("Any", scope).get("path_template") or "unmatched"
        self._metrics.answered(method, route, status, seconds)
        path = scope["path"]
        routine = not self._loud or path.startswith(_QUIET)
        tell = _log.error if status >= _SERVER_ERROR else (_log.debug if routine else _log.info)
        tell(
            "request",
            method=method,
            path=path[:200],
            status=status,
            milliseconds=round(seconds * 1000, 1),
            client=request.ip,
        )
