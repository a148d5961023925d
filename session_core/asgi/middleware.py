"""Gives each request its session handle, and makes it durable before the response starts. Knows no store.

    read_cookie -> load_session -> guards -> handler -> save_session -> write_cookie -> response

Nothing is read until somebody asks for the session; nothing is sent that depends on a write that was not acknowledged. The
response's side of it is `session_core.asgi.exchange`.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware

from session_core.asgi.error_guard import error_guard_of
from session_core.asgi.exchange import Exchange, RequestSession, Surroundings, with_caching
from session_core.errors import ConfigurationError
from session_core.sessions.handle import SessionHandle

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from session_core.asgi.error_guard import ErrorGuard
    from session_core.asgi.same_origin_middleware import SameOriginMiddleware
__all__ = ("SCOPE_KEY", "SessionMiddleware", "provide_session", "vary_on_cookie")

SCOPE_KEY: Final = "session_core.session"
_current: ContextVar[SessionHandle[Any] | None] = ContextVar("session_core.session", default=None)
"""The session of the running request, where a Litestar cannot inject it directly (`session_core.litestar.injection`)."""


async def provide_session() -> SessionHandle[Any]:
    """Return the loaded session of the request that runs: what injection gives. Raises what `session_of` raises."""
    handle = _current.get()
    # A server may begin the next request of a connection inside the one before: whose response is out is not this one's session.
    if handle is None or handle.response_started:
        msg = "this route does not use the session: inject it, guard the route, or give the handler opt={'session': True}"
        raise ConfigurationError(msg)
    return handle if handle.loaded else await handle.load()


def _begun_outside(outer: RequestSession, around: Surroundings) -> RequestSession | None:
    """Return the session that outer middleware has asked for; None where it is that of another application."""
    if not outer.belongs_to(around.lifecycle):
        return None
    outer.served = True
    return outer


def vary_on_cookie(message: Message, scope: Scope) -> None:
    """Put `Cookie` back into `Vary` where something outside the session middleware (CORS) has overwritten it."""
    handle = cast("SessionHandle[Any] | None", scope.get(SCOPE_KEY))
    if message["type"] == "http.response.start" and handle is not None and handle.loaded:
        message["headers"] = with_caching(list(message.get("headers") or ()), private=False)


class SessionMiddleware(ASGIMiddleware):
    """The ASGI side of sessions; one instance serves all requests.

    `answer_error(scope, receive, send, error)` sends the response that the application gives for an error. `same_origin` judges
    the requests of a route that changes state, before anything of them is read: here, since one middleware costs less than two.
    `injected_directly`: nobody asks `provide_session`. `extends`: whether reading on these routes counts as use.
    """

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET, ScopeType.ASGI)

    def __init__(
        self,
        around: Surroundings,
        same_origin: SameOriginMiddleware | None = None,
        *,
        injected_directly: bool = False,
        extends: bool = True,
    ) -> None:
        self._around = around
        self._same_origin = same_origin
        self._extends = extends
        self._injected_directly = injected_directly

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind this middleware; no path or scope is left out, so nothing is looked up for that."""
        guard = error_guard_of(app)
        return partial(self._serve, app, guard)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Run the rest of the application with a session handle in the scope."""
        await self._serve(next_app, None, scope, receive, send)

    def _serve(self, next_app: ASGIApp, guard: ErrorGuard | None, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self._same_origin is not None and (reason := self._same_origin.reason(scope)) is not None:
            return self._same_origin.refuse(scope, receive, send, reason)
        state: Any = scope
        outer: RequestSession | None = state.get(SCOPE_KEY)
        if outer is not None and outer.belongs_to(self._around.lifecycle) and outer.served:  # the middleware stands here twice
            return next_app(scope, receive, send)
        return self._run(next_app, guard, scope, receive, send, outer)

    async def _run(
        self,
        next_app: ASGIApp,
        guard: ErrorGuard | None,
        scope: Scope,
        receive: Receive,
        send: Send,
        outer: RequestSession | None,
    ) -> None:
        around = self._around
        state: Any = scope
        exchange = Exchange(around, scope, receive, send, _begun_outside(outer, around) if outer else None)
        handle = state[SCOPE_KEY] = exchange.handle
        if not self._extends:
            handle.extends = False
        around.under_way.begin(handle)
        token = None if self._injected_directly else _current.set(handle)
        try:
            try:
                await (next_app if guard is None else guard.app)(scope, exchange.receive, exchange.send_durable)
            except Exception as error:
                if guard is None:
                    raise
                started = handle.response_started
                await guard.answer(error, scope, receive, exchange.send_durable, started=started)
            if exchange.has_unsaved_changes():
                await exchange.save_late()
        except HTTPException as error:
            await exchange.answer_with_cookie(error)
        except (Exception, asyncio.CancelledError) as error:
            if not exchange.has_stopped(error):
                await exchange.leave_behind(error)
                raise
        finally:
            around.under_way.end(handle)
            exchange.leave()
            if token is not None:
                _current.reset(token)
            if outer is not None:  # an application mounted in one that has other sessions
                state[SCOPE_KEY] = outer
