"""Gives each request its session handle, and makes it durable before the response starts. Knows no store.

    read_cookie -> load_session -> guards -> handler -> save_session -> write_cookie -> response

Nothing is read until somebody asks for the session; nothing is sent that depends on a write that was not acknowledged.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware

from session_core.cookies import read_session_id
from session_core.errors import ConfigurationError, SessionCoreError
from session_core.live_connections import LiveConnection
from session_core.record import Device
from session_core.session import SessionHandle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from litestar.connection import ASGIConnection
    from litestar.types import ASGIApp, Message, Receive, ReceiveMessage, Scope, Send

    from session_core.config import SessionConfig
    from session_core.lifecycle import SessionLifecycle
    from session_core.live_connections import LiveConnections

__all__ = ("SessionMiddleware", "provide_session", "session_of", "vary_on_cookie")

_SCOPE_KEY: Final = "session_core.session"
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SERVER_ERROR: Final = 500
_MAX_USER_AGENT: Final = 256
_PRIVATE: Final = (b"cache-control", b"private, no-store")
_current: ContextVar[SessionHandle[Any] | None] = ContextVar("session_core.session", default=None)
"""The session of the request that runs: a dependency that takes the scope would cost twice as much."""


async def session_of(connection: ASGIConnection[Any, Any, Any, Any]) -> SessionHandle[Any]:
    """Return the loaded session of a request or WebSocket, for guards and wherever injection does not reach.

    Raises `ConfigurationError` on a route that does not use the session, `StoreUnavailableError`.
    """
    handle = cast("SessionHandle[Any] | None", connection.scope.get(_SCOPE_KEY))
    if handle is None:
        raise _not_used(connection.scope["path"])
    return await handle.load()


async def provide_session() -> SessionHandle[Any]:
    """Return the loaded session of the request that runs: what injection gives. Raises what `session_of` raises."""
    handle = _current.get()
    # A server may begin the next request of a connection inside the one before: whose response is out is not this one's session.
    if handle is None or handle.response_started:
        raise _not_used()
    return await handle.load()


def _not_used(path: str | None = None) -> ConfigurationError:
    return ConfigurationError(
        f"the route {path or 'of this request'} does not use the session: inject it, guard the route, or give the handler "
        "opt={'session': True}"
    )


def vary_on_cookie(message: Message, scope: Scope) -> None:
    """Put `Cookie` back into `Vary` where something outside the session middleware (CORS) has overwritten it."""
    handle = cast("SessionHandle[Any] | None", scope.get(_SCOPE_KEY))
    if message["type"] == "http.response.start" and handle is not None and handle.loaded:
        message["headers"] = _with_caching(list(message.get("headers") or ()), private=False)


class _ReplacedResponseError(Exception):
    """Stops a handler that goes on streaming a response which an error has replaced."""


class SessionMiddleware(ASGIMiddleware):
    """The ASGI side of sessions; one instance serves all requests.

    `answer_error(scope, receive, send, error)` sends the response that the application gives for an error.
    """

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET, ScopeType.ASGI)

    def __init__(
        self,
        config: SessionConfig[Any],
        lifecycle: SessionLifecycle[Any],
        answer_error: Callable[[Scope, Receive, Send, Exception], Awaitable[None]],
        connections: LiveConnections | None = None,
    ) -> None:
        self.config = config
        self.lifecycle = lifecycle
        self.answer_error = answer_error
        self.connections = connections

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind this middleware; no path or scope is left out, so nothing is looked up for that."""

        async def with_session(scope: Scope, receive: Receive, send: Send) -> None:
            await self.handle(scope, receive, send, app)

        return with_session

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Run the rest of the application with a session handle in the scope."""
        state = cast("dict[str, Any]", scope)
        outer: SessionHandle[Any] | None = state.get(_SCOPE_KEY)
        if outer is not None and outer.belongs_to(self.lifecycle):  # the middleware stands here twice
            await next_app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        state[_SCOPE_KEY] = exchange.handle
        token = _current.set(exchange.handle)
        try:
            await next_app(scope, receive if self.connections is None else exchange.receive, exchange.send_durable)
            await exchange.save_rest()
        except HTTPException as error:
            await exchange.answer_with_cookie(error)
        except (Exception, asyncio.CancelledError) as error:
            if not exchange.has_stopped(error):
                raise
        finally:
            exchange.leave()
            _current.reset(token)
            if outer is not None:  # an application mounted in one that has other sessions
                state[_SCOPE_KEY] = outer

    def finish(self, message: Message, handle: SessionHandle[Any]) -> Message:
        """Return the start message with the cookie and the caching headers that the session asks for."""
        # A copy, always: Litestar's response cache keeps the message, and would replay this visitor's cookie to others.
        start = cast("dict[str, Any]", message)
        headers: list[tuple[bytes, bytes]] = list(start.get("headers") or ())
        if handle.cookie_action == "set" and handle.session_id and handle.absolute_expires_at:
            headers.append((b"set-cookie", self._cookie(handle.session_id, handle.absolute_expires_at)))
        elif handle.cookie_action == "delete":
            headers.append((b"set-cookie", self.config.resolved_cookie.delete_header()))
        if message["type"] != "websocket.accept":
            private = handle.exists or handle.cookie_action is not None
            headers = _with_caching(headers, private=private)
        return cast("Message", {**message, "headers": headers})

    async def report_resigned(self, handle: SessionHandle[Any]) -> None:
        """Tell that a cookie signed with an older secret is signed anew."""
        await self.lifecycle.events.emit("cookie.resigned", handle=handle.handle)

    def _cookie(self, session_id: str, absolute_expires_at: int) -> bytes:
        cookie = self.config.resolved_cookie
        # The browser may keep it as long as the session can live at most; the server alone decides about idleness.
        max_age = max(1, -(-(absolute_expires_at - self.config.clock.now()) // 1000))
        return cookie.set_header(self.config.signer.sign(session_id), max_age)


class _Exchange:
    """One request and its response, which is sent after what it depends on is durable."""

    __slots__ = (
        "_failed", "_headers", "_middleware", "_over", "_receive", "_scope", "_send", "_task", "_visitor", "handle", "live",
        "replaced",
    )  # fmt: skip

    def __init__(self, middleware: SessionMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._middleware = middleware
        self._scope = scope
        self._receive = receive
        self._send = send
        self._visitor = _Visitor(middleware, scope)
        self._failed = self._over = False
        self._headers: Iterable[tuple[bytes, bytes]] = ()
        self.live: LiveConnection | None = None
        """Set once the exchange may last."""
        self._task = None if middleware.connections is None else asyncio.current_task()
        self.handle: SessionHandle[Any] = SessionHandle(middleware.lifecycle, self._visitor.read_id, self._visitor.read_device)
        self.replaced = False
        """Whether an error has taken the place of the response."""

    async def send_durable(self, message: Message) -> None:
        """Save the session before the response starts; send the error instead where that fails."""
        if self.replaced:
            raise _ReplacedResponseError
        if message["type"] in _STARTS:
            error = await self._save(message) if self.handle.loaded else None
            if error is not None:
                await self._replace(error)
                return
            message = await self._finished(message)
            self._headers = cast("dict[str, Any]", message).get("headers") or ()
        elif self.live is None and message.get("more_body"):
            self._stay_open()
        await (self._send if self.live is None else self.live.send)(message)
        if message["type"] == "websocket.accept":
            self._stay_open()

    async def receive(self) -> ReceiveMessage:
        """Return what the client says; once the response has begun, also that the session has ended."""
        if self.live is None and self.handle.response_started:
            self._stay_open()
        return await (self._receive if self.live is None else self.live.receive)()

    def has_stopped(self, error: BaseException) -> bool:
        """Whether the handler was stopped on purpose: its response was replaced, or its session has ended."""
        if self.live is not None and self.live.stopped(error):
            return True
        return self.replaced and isinstance(error, Exception)

    def leave(self) -> None:
        """The exchange is over."""
        self._over = True
        if self.live is not None:
            self.live.leave()

    def _stay_open(self) -> None:
        """A WebSocket, or a response that is still streaming: it closes when the session ends."""
        # A task that the handler has left behind may still ask for the client: there is nothing to close any more.
        if (connections := self._middleware.connections) is not None and not self._over:
            kind = "websocket" if self._scope["type"] == ScopeType.WEBSOCKET else "stream"
            sized = any(name.lower() == b"content-length" for name, _ in self._headers)
            self.live = LiveConnection(connections, self.handle, kind, self._receive, self._send, self._task, sized=sized)

    async def save_rest(self) -> None:
        """Save what a background task or WebSocket handler has assigned since; nobody is left to tell of a conflict."""
        handle = self.handle
        if handle.loaded and not self._failed and handle.exists and handle.changed:
            with suppress(SessionCoreError):  # an event has told the log
                await handle.save()

    async def answer_with_cookie(self, error: HTTPException) -> None:
        """Answer an exception of inner middleware here when the session has a cookie to send: outside, it would be lost."""
        if self.replaced:
            return
        if self.handle.response_started or self.handle.cookie_action is None or self._scope["type"] != ScopeType.HTTP:
            raise error
        await self._replace(error)

    async def _replace(self, error: Exception) -> None:
        async def send(message: Message) -> None:
            await self._send(await self._finished(message) if message["type"] in _STARTS else message)

        self.replaced = True
        await self._middleware.answer_error(self._scope, self._receive, send, error)

    async def _finished(self, start: Message) -> Message:
        """Return the start message as it goes out; from here on the cookie cannot be changed."""
        handle = self.handle
        handle.response_started = True
        if not handle.loaded:
            return start
        if self._visitor.needs_resign and handle.exists and handle.cookie_action is None:
            handle.cookie_action = "set"
            await self._middleware.report_resigned(handle)
        return self._middleware.finish(start, handle)

    async def _save(self, message: Message) -> SessionCoreError | None:
        """Make the handler's assignments durable; return the error that must be answered instead of `message`."""
        if cast("dict[str, Any]", message).get("status", 0) >= _SERVER_ERROR:
            # The handler failed: its assignments go with its other work; what it made durable stands.
            self._failed = True
            return None
        try:
            if self.handle.save_due:
                await self.handle.save()
        except SessionCoreError as error:
            if message["type"] != "http.response.start":
                raise
            return error
        return None


class _Visitor:
    """What one request says about its session and its sender."""

    # The headers, not the scope: the scope holds the handle and the handle this, and a cycle is freed late.
    __slots__ = ("_client", "_headers", "_middleware", "_scope", "needs_resign")

    def __init__(self, middleware: SessionMiddleware, scope: Scope) -> None:
        self._middleware = middleware
        self._headers = scope["headers"]
        self._client = scope.get("client")
        self._scope = scope if middleware.config.device is not None else None
        self.needs_resign = False

    async def read_id(self) -> str | None:
        """Return the verified session id, or None; a bad cookie is an event, never an error."""
        config = self._middleware.config
        reading = read_session_id(self._headers, config.resolved_cookie, config.signer)
        if reading.rejected:
            await self._middleware.lifecycle.events.emit("cookie.rejected", reason=reading.rejected)
        self.needs_resign = reading.needs_resign
        return reading.session_id

    def read_device(self) -> Device:
        """Return where the client says it comes from."""
        device = self._middleware.config.device
        if device is not None and self._scope is not None:
            return device(self._scope["litestar_app"].request_class(self._scope))
        agent = next((value for name, value in self._headers if name == b"user-agent"), b"")
        return Device(ip=self._client[0] if self._client else "", user_agent=agent.decode("latin-1")[:_MAX_USER_AGENT])


def _with_caching(headers: list[tuple[bytes, bytes]], *, private: bool) -> list[tuple[bytes, bytes]]:
    """Say that the response depends on the cookie and, with a session, that nobody may keep it."""
    kept: list[tuple[bytes, bytes]] = []
    vary = b""
    for header in headers:
        name = header[0].lower()
        if name == b"vary":
            vary = vary + b", " + header[1] if vary else header[1]
        elif not private or name != b"cache-control":
            kept.append(header)
    if not vary:
        vary = b"Cookie"
    elif not {part.strip().lower() for part in vary.split(b",")} & {b"cookie", b"*"}:
        vary += b", Cookie"
    kept.append((b"vary", vary))
    if private:
        kept.append(_PRIVATE)
    return kept
