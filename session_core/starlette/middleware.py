"""The session middleware as an ASGI wrapper: sessions, the same-origin rule, answers to errors, start and stop of the store.

Works without Starlette; if it is installed, its request classes and its exception for a disconnected client are used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog

from session_core.asgi.answers import error_response
from session_core.asgi.application import SessionApplication
from session_core.asgi.middleware import SCOPE_KEY
from session_core.asgi.middleware import SessionMiddleware as AsgiMiddleware
from session_core.connections.closable import ConnectionEndedError, Disconnects
from session_core.errors import ConfigurationError, SessionCoreError

try:
    from starlette.requests import HTTPConnection
    from starlette.websockets import WebSocketDisconnect
except ModuleNotFoundError:  # a plain ASGI application
    HTTPConnection = WebSocketDisconnect = None  # type: ignore[assignment, misc]
from session_core.asgi_types import ASGIApp, Message, Receive, Scope, Send
from session_core.config import SessionConfig

__all__ = ("SessionMiddleware", "StarletteSessions", "sessions_of")

D = TypeVar("D", bound=msgspec.Struct)

_KEY: Final = "session_core.starlette"
_SERVER_ERROR: Final = 500
_WEBSOCKET_CODES: Final = 4000
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")


class StarletteSessions(Generic[D]):
    """The sessions of one application.

    `on_error(request, error)` returns the ASGI response for an error of the library, a page in the application's own look for
    example; by default it is a redirect to the login, a plain page, or problem+json (RFC 9457).
    """

    # Raised in a handler after a disconnect; Starlette converts an OSError to its own exception.
    disconnects = Disconnects(
        (ConnectionEndedError,) if WebSocketDisconnect is None else (ConnectionEndedError, WebSocketDisconnect),
        lambda _, reason: ConnectionEndedError(reason),
    )

    def __init__(
        self, config: SessionConfig[D], *, on_error: Callable[[Any, SessionCoreError], Awaitable[ASGIApp]] | None = None
    ) -> None:
        self.config = config
        self.application: SessionApplication[D] = SessionApplication(config, self)
        self.sessions = self.application.sessions
        """Other people's sessions."""
        self._on_error = on_error
        self.on_stop: list[Callable[[], Awaitable[None]]] = []
        """Called when the application stops, before the store is closed."""
        self.cross_site: set[str] = set()
        """Paths, as browsers see them, whose requests may come from any site: they read no cookie."""

    def connection_of(self, scope: Scope) -> Any:  # noqa: ANN401 - Starlette's, or the scope of a plain application
        """Return the connection that `SessionConfig.device` is called with."""
        return scope if HTTPConnection is None else HTTPConnection(scope)

    async def answer_error(self, scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
        """Send the response to an error of the library. Raises any other error."""
        if not isinstance(error, SessionCoreError):
            raise error
        if error.status_code == _SERVER_ERROR:
            _log.error("session error", code=error.code, problem=str(error), path=scope["path"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _WEBSOCKET_CODES + error.status_code, "reason": error.title})
            return
        if self._on_error is not None:
            response = await self._on_error(self.connection_of(scope), error)
        else:
            response = error_response(self.application.web_request(scope, receive), error, self.config)
        await response(scope, receive, send)


class SessionMiddleware:
    """`app.add_middleware(SessionMiddleware, sessions=sessions)`; `SessionMiddleware(app, sessions)` around a plain application.

    The outermost middleware that uses the session. It opens the store when the server starts the application and closes it when
    that stops, so the server must run the lifespan, as all do.
    """

    def __init__(self, app: ASGIApp, sessions: StarletteSessions[Any]) -> None:
        self._app = app
        self._sessions = sessions
        application = sessions.application
        self._judged = AsgiMiddleware(application.services, application.same_origin)
        self._unjudged = AsgiMiddleware(application.services)
        self._errors = _Errors(app, sessions)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await _Lifespan(self._sessions, receive, send).run(self._app, scope)
            return
        scope[_KEY] = self._sessions
        middleware = self._unjudged if self._sessions.cross_site and _path(scope) in self._sessions.cross_site else self._judged
        await middleware.serve(self._app, self._errors, scope, receive, send)


def sessions_of(scope: Scope) -> StarletteSessions[Any]:
    """Return the sessions of the application that serves a connection. Raises `ConfigurationError` without the middleware."""
    found: StarletteSessions[Any] | None = scope.get(_KEY)
    if found is None or SCOPE_KEY not in scope:
        msg = "the application has no session middleware: app.add_middleware(SessionMiddleware, sessions=sessions)"
        raise ConfigurationError(msg)
    return found


def _path(scope: Scope) -> str:
    """Return the path of a request below the application's root."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class _Errors:
    """Answers what the application has raised, where it is the library's (see `ErrorHandling`)."""

    def __init__(self, app: ASGIApp, sessions: StarletteSessions[Any]) -> None:
        self.app = app
        self._sessions = sessions

    async def answer(self, error: Exception, scope: Scope, receive: Receive, send: Send, *, started: bool) -> None:
        if not isinstance(error, SessionCoreError) or (started and scope["type"] == "http"):
            raise error
        await self._sessions.answer_error(scope, receive, send, error)


class _Lifespan:
    """Opens the store before the application starts, and closes it after the application has stopped."""

    def __init__(self, sessions: StarletteSessions[Any], receive: Receive, send: Send) -> None:
        self._sessions = sessions
        self._receive_from_server = receive
        self._send_to_server = send
        self._stack = AsyncExitStack()
        self._received = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            try:
                await app(scope, self._receive, self._send)
            except Exception:
                if self._received:
                    raise
            if not self._received:
                await self._live_alone()
        finally:
            await self._stack.aclose()

    async def _live_alone(self) -> None:
        """Answer for an application without a lifespan: it has ended without a look at the first message."""
        for _ in range(2):
            message = await self._receive()
            await self._send({"type": f"{message['type']}.complete"})

    async def _receive(self) -> Message:
        self._received = True
        message = await self._receive_from_server()
        if message["type"] == "lifespan.startup":
            await self._stack.enter_async_context(self._sessions.application.running())
            for stop in self._sessions.on_stop:
                self._stack.push_async_callback(stop)
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"}:
            await self._stack.aclose()
        await self._send_to_server(message)
