"""One line and one measurement for each request: method, path, status, time; never a query, header, cookie or body.

Outermost, so that all other code can use `current_request`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from litestar.enums import ScopeType

from app.web.request_context import RequestContext, client_address, current_request, user_agent

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from app.ops.metrics import Metrics
    from app.ops.traces import Traces
    from app.settings.settings import Network

__all__ = ("AccessLog",)

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("app.access")
_QUIET = ("/static/", "/health/", "/metrics")
_SERVER_ERROR = 500
_HEADER: Final = b"x-request-id"
_GRAMMAR: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class AccessLog:
    """ASGI wrapper around the whole application."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, trusted_proxies: Sequence[Network], *, loud: bool, traces: Traces | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._trusted = trusted_proxies
        self._loud = loud
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request and log it."""
        if scope["type"] not in {ScopeType.HTTP, ScopeType.WEBSOCKET}:
            await self._app(scope, receive, send)
            return
        request = RequestContext(_request_id(scope), client_address(scope, self._trusted), user_agent(scope))
        end_span = self._traces.begin(scope, request.request_id) if self._traces else None
        token = current_request.set(request)
        started = time.perf_counter()
        status = _SERVER_ERROR

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # A copy: Litestar's response cache keeps the message.
                headers = [*(message.get("headers") or ()), (_HEADER, request.request_id.encode())]
                message = cast("Message", {**message, "headers": headers})
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            with structlog.contextvars.bound_contextvars(request_id=request.request_id):
                try:
                    await self._app(scope, receive, send_noting_status)
                finally:
                    method, route = _method_and_route(scope)
                    self._metrics.answered(method, route, status, time.perf_counter() - started)
                    self._log(scope, request, method, status, time.perf_counter() - started)
                    if end_span is not None:
                        end_span(method, route, status)
        finally:
            current_request.reset(token)

    def _log(self, scope: Scope, request: RequestContext, method: str, status: int, seconds: float) -> None:
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


def _method_and_route(scope: Scope) -> tuple[str, str]:
    method = cast("Any", scope).get("method", "WS")
    # The route's pattern, not the path: clients could create any number of label values.
    route = cast("Any", scope).get("path_template") or "unmatched"
    return method if method in _METHODS or method == "WS" else "other", route


def _request_id(scope: Scope) -> str:
    """Return the request id of a proxy or a client if it is well-formed; else a new one."""
    given = [value for name, value in scope["headers"] if name == _HEADER]
    if len(given) == 1 and _GRAMMAR.fullmatch(given[0]):
        return given[0].decode("ascii")
    return secrets.token_hex(8)
