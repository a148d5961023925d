"""Gives each request its session handle, and makes it durable before the response starts. Knows no store.

    read_cookie -> load_session -> guards -> handler -> save_session -> write_cookie -> response

Nothing is read until somebody asks for the session; nothing is sent that depends on a write that was not acknowledged.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware

from session_core.cookies import read_session_id
from session_core.errors import ConfigurationError, SessionCoreError
from session_core.record import Device
from session_core.session import SessionHandle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from litestar.connection import ASGIConnection
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from session_core.config import SessionConfig
    from session_core.lifecycle import SessionLifecycle

__all__ = ("SessionMiddleware", "session_of", "vary_on_cookie")

_SCOPE_KEY = "session_core.session"
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SERVER_ERROR = 500
_MAX_USER_AGENT = 256


async def session_of(connection: ASGIConnection[Any, Any, Any, Any]) -> SessionHandle[Any]:
    """Return the loaded session of a request or WebSocket, for guards and wherever injection does not reach.

    Raises `ConfigurationError` on a route that does not use the session, `StoreUnavailableError`.
    """
    handle = cast("SessionHandle[Any] | None", connection.scope.get(_SCOPE_KEY))
    if handle is None:
        msg = (
            f"the route {connection.scope['path']!r} does not use the session: inject it, guard the route, or give the handler "
            "opt={'session': True}"
        )
        raise ConfigurationError(msg)
    return await handle.load()


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
    ) -> None:
        self._config = config
        self._lifecycle = lifecycle
        self.answer_error = answer_error

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Run the rest of the application with a session handle in the scope."""
        outer = cast("SessionHandle[Any] | None", scope.get(_SCOPE_KEY))
        if outer is not None and outer.belongs_to(self._lifecycle):  # the middleware stands here twice
            await next_app(scope, receive, send)
            return
        reader = _CookieReader(self._config, self._lifecycle, scope)
        handle: SessionHandle[Any] = SessionHandle(self._lifecycle, reader.session_id, reader.device)
        sender = _Sender(self, handle, reader, scope, receive, send)
        scope[_SCOPE_KEY] = handle  # type: ignore[literal-required] # pyright: ignore[reportGeneralTypeIssues]
        try:
            await next_app(scope, receive, sender.send_durable)
            await sender.save_rest()
        except HTTPException as error:
            await sender.answer_with_cookie(error)
        except Exception:
            if not sender.replaced:
                raise
        finally:
            if outer is not None:  # an application mounted in one that has other sessions
                scope[_SCOPE_KEY] = outer  # type: ignore[literal-required] # pyright: ignore[reportGeneralTypeIssues]

    def finish(self, message: Message, handle: SessionHandle[Any]) -> Message:
        """Return the start message with the cookie and the caching headers that the session asks for."""
        # A copy, always: Litestar's response cache keeps the message, and would replay this visitor's cookie to others.
        headers: list[tuple[bytes, bytes]] = list(cast("dict[str, Any]", message).get("headers") or ())
        if handle.cookie_action == "set" and handle.session_id and handle.absolute_expires_at:
            headers.append((b"set-cookie", self._cookie(handle.session_id, handle.absolute_expires_at)))
        elif handle.cookie_action == "delete":
            headers.append((b"set-cookie", self._config.resolved_cookie.delete_header()))
        if message["type"] != "websocket.accept":
            private = handle.exists or handle.cookie_action is not None
            headers = _with_caching(headers, private=private)
        return cast("Message", {**message, "headers": headers})

    async def report_resigned(self, handle: SessionHandle[Any]) -> None:
        """Tell that a cookie signed with an older secret is signed anew."""
        await self._lifecycle.events.emit("cookie.resigned", handle=handle.handle)

    def _cookie(self, session_id: str, absolute_expires_at: int) -> bytes:
        cookie = self._config.resolved_cookie
        # The browser may keep it as long as the session can live at most; the server alone decides about idleness.
        max_age = max(1, -(-(absolute_expires_at - self._config.clock.now()) // 1000))
        return cookie.set_header(self._config.signer.sign(session_id), max_age)


class _Sender:
    """Sends one response, after what it depends on is durable."""

    def __init__(
        self,
        middleware: SessionMiddleware,
        handle: SessionHandle[Any],
        reader: _CookieReader,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._middleware = middleware
        self._handle = handle
        self._reader = reader
        self._scope = scope
        self._receive = receive
        self._send = send
        self._failed = False
        self.replaced = False
        """Whether an error has taken the place of the response."""

    async def send_durable(self, message: Message) -> None:
        """Save the session before the response starts; send the error instead where that fails."""
        if self.replaced:
            raise _ReplacedResponseError
        if message["type"] not in _STARTS:
            await self._send(message)
            return
        error = await self._save(message) if self._handle.loaded else None
        if error is None:
            await self._send_finished(message)
        else:
            await self._replace(error)

    async def save_rest(self) -> None:
        """Save what a background task or WebSocket handler has assigned since; nobody is left to tell of a conflict."""
        if self._handle.changed and self._handle.exists and not self._failed:
            with suppress(SessionCoreError):  # an event has told the log
                await self._handle.save()

    async def answer_with_cookie(self, error: HTTPException) -> None:
        """Answer an exception of inner middleware here when the session has a cookie to send: outside, it would be lost."""
        if self.replaced:
            return
        if self._handle.response_started or self._handle.cookie_action is None or self._scope["type"] != ScopeType.HTTP:
            raise error
        await self._replace(error)

    async def _replace(self, error: Exception) -> None:
        self.replaced = True
        await self._middleware.answer_error(self._scope, self._receive, self._send_finished, error)

    async def _send_finished(self, message: Message) -> None:
        if message["type"] in _STARTS:
            self._handle.response_started = True
            if self._reader.needs_resign and self._handle.exists and self._handle.cookie_action is None:
                self._handle.cookie_action = "set"
                await self._middleware.report_resigned(self._handle)
            if self._handle.loaded:
                message = self._middleware.finish(message, self._handle)
        await self._send(message)

    async def _save(self, message: Message) -> SessionCoreError | None:
        """Make the handler's assignments durable; return the error that must be answered instead of `message`."""
        if cast("dict[str, Any]", message).get("status", 0) >= _SERVER_ERROR:
            # The handler failed: its assignments go with its other work; what it made durable stands.
            self._failed = True
            return None
        try:
            await self._handle.save()
        except SessionCoreError as error:
            if message["type"] != "http.response.start":
                raise
            return error
        return None


class _CookieReader:
    """What one request says about its session and its sender."""

    def __init__(self, config: SessionConfig[Any], lifecycle: SessionLifecycle[Any], scope: Scope) -> None:
        self._config = config
        self._lifecycle = lifecycle
        self._scope = scope
        self.needs_resign = False

    async def session_id(self) -> str | None:
        """Return the verified session id, or None; a bad cookie is an event, never an error."""
        reading = read_session_id(self._scope["headers"], self._config.resolved_cookie, self._config.signer)
        if reading.rejected:
            await self._lifecycle.events.emit("cookie.rejected", reason=reading.rejected)
        self.needs_resign = reading.needs_resign
        return reading.session_id

    def device(self) -> Device:
        """Return where the client says it comes from."""
        if self._config.device is not None:
            return self._config.device(self._scope["litestar_app"].request_class(self._scope))
        client = self._scope.get("client")
        agent = next((value for name, value in self._scope["headers"] if name == b"user-agent"), b"")
        return Device(ip=client[0] if client else "", user_agent=agent.decode("latin-1")[:_MAX_USER_AGENT])


def _with_caching(headers: list[tuple[bytes, bytes]], *, private: bool) -> list[tuple[bytes, bytes]]:
    """Say that the response depends on the cookie and, with a session, that nobody may keep it."""
    vary = b", ".join(value for name, value in headers if name.lower() == b"vary")
    names = {part.strip().lower() for part in vary.split(b",")}
    kept = [(name, value) for name, value in headers if name.lower() != b"vary"]
    if not names & {b"cookie", b"*"}:
        vary = vary + b", Cookie" if vary else b"Cookie"
    kept.append((b"vary", vary))
    if private:
        kept = [(name, value) for name, value in kept if name.lower() != b"cache-control"]
        kept.append((b"cache-control", b"private, no-store"))
    return kept
