"""Gives each request its session handle and saves it before the response starts. Independent of stores and frameworks.

    read_cookie -> load_session -> guards -> handler -> save_session -> write_cookie -> response

The session is read on first use. A response is sent only after the writes it depends on were acknowledged
(`session_core.asgi.exchange`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, Final, Protocol
from weakref import ref

from session_core.asgi.exchange import Exchange, SessionServices
from session_core.asgi.same_origin import SameOriginRule
from session_core.asgi_types import ASGIApp, Receive, Scope, Send
from session_core.events import current_session
from session_core.sessions.handle import SessionHandle

__all__ = ("SCOPE_KEY", "ErrorHandling", "SessionMiddleware")

SCOPE_KEY: Final = "session_core.session"
"""Where the scope of a request holds its session handle."""


class ErrorHandling(Protocol):
    """The framework's exception handler around `app`, called only when `app` has raised."""

    app: ASGIApp

    async def answer(self, error: Exception, scope: Scope, receive: Receive, send: Send, *, started: bool) -> None:
        """Answer the error as the framework does. `started`: a response has begun. Raises what the framework raises."""
        ...


class SessionMiddleware:
    """The ASGI side of sessions; one instance serves all requests of a kind.

    `same_origin` checks requests before they are read; it is part of this middleware because two cost more. `extends`: whether
    reading counts as use. `current` is set to the handle while its request runs. `answered_outside` are errors that the framework
    answers outside of this middleware: if the session has a cookie to send, they are answered here.
    """

    answered_outside: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        services: SessionServices,
        same_origin: SameOriginRule | None = None,
        *,
        current: ContextVar[SessionHandle[Any] | None] | None = None,
        extends: bool = True,
    ) -> None:
        self._services = services
        self._same_origin = same_origin
        self._extends = extends
        self._current = current

    def serve(
        self, next_app: ASGIApp, errors: ErrorHandling | None, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Run the rest of the application with a session handle in the scope."""
        if self._same_origin is not None and (reason := self._same_origin.reason(scope)) is not None:
            return self._same_origin.refuse(scope, receive, send, reason)
        if (tokens := self._services.tokens) is not None and tokens.is_ambiguous(scope):
            return self._services.refuse_ambiguous(scope, receive, send)
        outer: SessionHandle[Any] | None = scope.get(SCOPE_KEY)
        if outer is not None and outer.belongs_to(self._services.lifecycle) and outer.served:  # the middleware runs already
            return next_app(scope, receive, send)
        return self._run(next_app, errors, scope, receive, send, outer)

    async def _run(
        self,
        next_app: ASGIApp,
        errors: ErrorHandling | None,
        scope: Scope,
        receive: Receive,
        send: Send,
        outer: SessionHandle[Any] | None,
    ) -> None:
        services = self._services
        exchange = Exchange(services, scope, receive, send, None if outer is None else _begun_outside(outer, services))
        handle = scope[SCOPE_KEY] = exchange.handle
        if not self._extends:
            handle.extends = False
        services.under_way.begin(handle)
        # Weakly: a task that outlives the request must not keep or use its session.
        acting = current_session.set(None if services.lifecycle.impersonation is None else ref(handle))
        token = None if self._current is None else self._current.set(handle)
        try:
            try:
                await (next_app if errors is None else errors.app)(scope, exchange.receive, exchange.send_durable)
            except Exception as error:
                if errors is None:
                    raise
                started = handle.response_started
                await errors.answer(error, scope, receive, exchange.send_durable, started=started)
            if exchange.has_unsaved_changes():
                await exchange.save_late()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, self.answered_outside):
                await exchange.answer_with_cookie(error)
            elif not exchange.has_stopped(error):
                await exchange.leave_behind(error)
                raise
        finally:
            services.under_way.end(handle)
            exchange.leave()
            current_session.reset(acting)
            if token is not None and self._current is not None:
                self._current.reset(token)
            if outer is not None:  # a mounted application inside one with other sessions
                scope[SCOPE_KEY] = outer


def _begun_outside(outer: SessionHandle[Any], services: SessionServices) -> tuple[SessionHandle[Any], Any] | None:
    """Return the session that outer middleware has loaded; None if it belongs to another application."""
    if not outer.belongs_to(services.lifecycle):
        return None
    outer.served = True
    return outer, outer.source
