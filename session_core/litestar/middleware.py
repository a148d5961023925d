"""The session and same-origin middleware as Litestar runs them."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, cast

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, WebSocketDisconnect
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from session_core.asgi.exchange import SessionServices, with_caching
from session_core.asgi.middleware import SCOPE_KEY, SessionMiddleware
from session_core.asgi.same_origin import SameOriginRule
from session_core.connections.closable import Disconnects
from session_core.litestar.dependency import CURRENT
from session_core.litestar.internals import call_directly, error_guard_of, wrap
from session_core.sessions.handle import SessionHandle

__all__ = ("LITESTAR_DISCONNECTS", "LitestarSessionMiddleware", "SameOriginMiddleware", "vary_on_cookie")

LITESTAR_DISCONNECTS: Final = Disconnects(
    (WebSocketDisconnect,), lambda code, reason: WebSocketDisconnect(detail=reason, code=code)
)
_EVERY_SCOPE: Final = (ScopeType.HTTP, ScopeType.WEBSOCKET, ScopeType.ASGI)


def vary_on_cookie(message: Message, scope: Scope, vary: tuple[bytes, bytes]) -> None:
    """Restore `vary` if outer code (CORS) has overwritten the header."""
    handle = cast("SessionHandle[Any] | None", scope.get(SCOPE_KEY))
    if message["type"] == "http.response.start" and handle is not None and handle.loaded:
        message["headers"] = with_caching(list(message.get("headers") or ()), private=False, vary=vary)


class LitestarSessionMiddleware(SessionMiddleware, ASGIMiddleware):
    """See `SessionMiddleware`. `injected_directly`: `provide_session` is never called for these routes."""

    scopes = _EVERY_SCOPE
    answered_outside = (HTTPException,)

    def __init__(
        self,
        services: SessionServices,
        same_origin: SameOriginRule | None = None,
        *,
        injected_directly: bool = False,
        extends: bool = True,
    ) -> None:
        super().__init__(services, same_origin, current=None if injected_directly else CURRENT, extends=extends)

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind this middleware."""
        errors = error_guard_of(app)
        if errors is not None:
            errors.app = call_directly(errors.app)
        return wrap(self, app, self.serve, app, errors)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Run the rest of the application with a session handle in the scope."""
        await self.serve(next_app, None, scope, receive, send)


class SameOriginMiddleware(ASGIMiddleware):
    """The same-origin rule on routes that change state and use no session."""

    scopes = _EVERY_SCOPE

    def __init__(self, rule: SameOriginRule) -> None:
        self._rule = rule

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind this middleware."""
        return wrap(self, app, partial(self.handle, next_app=app))

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Accept the request, or answer 403 without reading it."""
        reason = self._rule.reason(scope)
        if reason is None:
            await next_app(scope, receive, send)
        else:
            await self._rule.refuse(scope, receive, send, reason)
