"""Refuses state-changing requests and WebSockets that a page of another site sent (CSRF, cross-site WebSocket hijacking)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware

from session_core.asgi.same_origin import (
    CrossSiteReason,
    cross_site_reason,
    cross_site_websocket_reason,
    is_plainly_same_origin,
)
from session_core.errors import CrossSiteRequestError
from session_core.urls import origin_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from litestar.types import ASGIApp, Receive, Scope, Send

    from session_core.config import SessionConfig
    from session_core.events import Events

__all__ = ("SameOriginMiddleware",)


class SameOriginMiddleware(ASGIMiddleware):
    """Stands before the session on routes that change state; one instance serves all requests."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET, ScopeType.ASGI)

    def __init__(
        self,
        config: SessionConfig[Any],
        events: Events,
        answer_error: Callable[[Scope, Receive, Send, Exception], Awaitable[None]],
    ) -> None:
        self._origin = config.public_origin
        self._trusted = frozenset(origin_of(origin) for origin in config.trusted_origins)
        self._events = events
        self._answer_error = answer_error

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind this middleware; no path or scope is left out, so nothing is looked up for that."""
        return partial(self.handle, next_app=app)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Let the request pass, or answer 403 before anything of it is read."""
        reason = self.reason(scope)
        if reason is None:
            await next_app(scope, receive, send)
        else:
            await self.refuse(scope, receive, send, reason)

    def reason(self, scope: Scope) -> CrossSiteReason | None:
        """Return why a request is refused, or None."""
        if is_plainly_same_origin(scope["headers"]):
            return None
        if scope["type"] == ScopeType.HTTP:
            return cross_site_reason(scope["method"], scope["headers"], public_origin=self._origin, trusted_origins=self._trusted)
        return cross_site_websocket_reason(scope["headers"], public_origin=self._origin, trusted_origins=self._trusted)

    async def refuse(self, scope: Scope, receive: Receive, send: Send, reason: CrossSiteReason) -> None:
        """Answer 403."""
        await self._events.emit("request.cross_site", reason=reason)
        if scope["type"] == ScopeType.HTTP:
            await self._answer_error(scope, receive, send, CrossSiteRequestError())
        else:
            # Closing before accepting is an HTTP 403 to the browser.
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": CrossSiteRequestError.title})
