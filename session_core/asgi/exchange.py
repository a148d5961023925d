"""One request and its response: the response starts after what it depends on is durable. Independent of stores and routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final, Protocol

from session_core.asgi.bearer import BearerTokens, presents_bearer
from session_core.asgi.carriers import BearerCarrier, CookieCarrier
from session_core.asgi.under_way import RequestsUnderWay
from session_core.asgi_types import Headers, Message, Receive, Scope, Send
from session_core.config import SessionConfig
from session_core.connections.closable import Disconnects
from session_core.connections.live import LiveConnection, LiveConnections
from session_core.cookies import SessionCookieReader
from session_core.errors import AmbiguousCredentialsError, SessionCoreError
from session_core.sessions.handle import SessionHandle
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.stores.deadlines import open_request_time

__all__ = ("STARTS", "Exchange", "Framework", "SessionServices", "with_caching")

_OTHER_STARTS: Final = frozenset({"websocket.accept", "websocket.http.response.start"})
STARTS: Final = frozenset({"http.response.start", *_OTHER_STARTS})
_SERVER_ERROR: Final = 500
_PRIVATE: Final = (b"cache-control", b"private, no-store")
_VARY: Final = (b"vary", b"Cookie")
_VARY_BY_TOKEN: Final = (b"vary", b"Cookie, Authorization")
_CLOSE_BAD_REQUEST: Final = 4400
_ABOUT_CACHING: Final = frozenset({b"vary", b"cache-control"})


class _ReplacedResponseError(Exception):
    """Stops a handler that keeps streaming after an error has replaced its response."""


class Framework(Protocol):
    """What an exchange needs from the framework of the application."""

    disconnects: Disconnects

    async def answer_error(self, scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
        """Send the response that the application gives for an error."""
        ...

    def connection_of(self, scope: Scope) -> Any:  # noqa: ANN401 - the class differs per framework
        """Return the request or WebSocket object that `SessionConfig.device` is called with."""
        ...


class SessionServices:
    """What all exchanges of an application share."""

    def __init__(
        self,
        config: SessionConfig[Any],
        lifecycle: SessionLifecycle[Any],
        framework: Framework,
        connections: LiveConnections | None,
    ) -> None:
        self.lifecycle = lifecycle
        self.framework = framework
        self.connections = connections
        self.under_way = RequestsUnderWay(config.timeouts.idle)
        self.cookie = config.resolved_cookie
        self.signer = config.signer
        self.cookies = SessionCookieReader(self.cookie, self.signer)
        signer = config.token_signer
        self.tokens = None if signer is None else BearerTokens(signer, self.cookie.name)
        """None where sessions come by cookie alone."""
        self.vary = _VARY if signer is None else _VARY_BY_TOKEN
        """The header of a response that depends on the session."""
        self.device = config.device
        self._clock = config.clock

    def carrier_of(self, scope: Scope) -> CookieCarrier:
        """Return what carries the session id of a request."""
        if self.tokens is not None and presents_bearer(scope["headers"]):
            return BearerCarrier(self, scope, ambiguous=self.tokens.is_ambiguous(scope))
        return CookieCarrier(self, scope)

    async def refuse_ambiguous(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400 to a request that presents a session in two ways, before anything else of it is read."""
        if scope["type"] == "http":
            await self.framework.answer_error(scope, receive, send, AmbiguousCredentialsError())
        else:
            await receive()
            await send({"type": "websocket.close", "code": _CLOSE_BAD_REQUEST, "reason": AmbiguousCredentialsError.title})

    def set_cookie(self, text: str, absolute_expires_at: int, persistent: bool | None) -> bytes:  # noqa: FBT001 - a fact
        """Return the Set-Cookie value with the session id, or with several ids of which one is live."""
        # The browser may keep it for the absolute timeout; the server alone enforces the idle timeout.
        max_age = max(1, -(-(absolute_expires_at - self._clock.now()) // 1000))
        return self.cookie.set_header(self.signer.sign(text), max_age, persistent=persistent)


class Exchange:
    """One request and its response."""

    # Instance slots: CPython 3.11 takes five times as long to read a class attribute.
    __slots__ = (
        "_carrier", "_failed", "_head", "_over", "_receive", "_replaced", "_scope", "_send", "_services", "_store_time", "_task",
        "handle", "live",
    )  # fmt: skip

    def __init__(
        self,
        services: SessionServices,
        scope: Scope,
        receive: Receive,
        send: Send,
        begun: tuple[SessionHandle[Any], CookieCarrier] | None = None,
    ) -> None:
        self._services = services
        self._scope = scope
        self._receive = receive
        self._send = send
        self._head: Any = None
        """The message that started the response."""
        self._failed = self._over = False
        self._replaced = False
        """Whether an error has taken the place of the response."""
        self._task = None if services.connections is None else asyncio.current_task()
        self.live: LiveConnection | None = None
        """Set for WebSockets and streaming responses."""
        if begun is None:
            carrier = self._carrier = services.carrier_of(scope)
            self.handle: SessionHandle[Any] = SessionHandle(services.lifecycle, carrier)
        else:
            self.handle, self._carrier = begun
        self._store_time = open_request_time()

    def send_durable(self, message: Message) -> Awaitable[None]:
        """Save the session before the response starts; if that fails, send the error instead."""
        if self._replaced:
            raise _ReplacedResponseError
        kind = message["type"]
        if kind == "http.response.start":
            handle = self.handle
            try:
                waits = (
                    self.live is not None or self._carrier.needs_resign or handle.has_to_save() or handle.save_first is not None
                )
            except SessionCoreError:  # what is assigned cannot be stored, as saving it will say
                waits = True
            return self._start(message) if waits else self._send(self._begun(message))
        if kind in _OTHER_STARTS:
            return self._start(message)
        if self.live is None:
            if not message.get("more_body"):
                return self._send(message)
            self._stay_open()
        return (self._send if self.live is None else self.live.send)(message)

    async def receive(self) -> Message:
        """Return the next message of the client, or a disconnect when the session has ended after the response began."""
        if self.live is None:
            if self.handle.response_started:
                self._stay_open()
            elif self._scope["type"] == "http":
                return await self._receive_body()
        return await (self._receive if self.live is None else self.live.receive)()

    async def _receive_body(self) -> Message:
        """Return a part of the request body, which may take longer to arrive than the idle timeout."""
        handle = self.handle
        if not handle.loaded:
            with suppress(SessionCoreError):  # raised when the handler asks for the session
                await handle.load()
        message = await self._receive()
        if handle.snapshot is not None:
            await handle.extend()
        return message

    def has_stopped(self, error: BaseException) -> bool:
        """Whether this exchange stopped the handler: its response was replaced, or its session has ended."""
        if self.live is not None and self.live.stopped(error):
            return True
        return self._replaced and isinstance(error, Exception)

    def leave(self) -> None:
        """The exchange is over."""
        self._over = self._store_time.over = True
        if self.live is not None:
            self.live.leave()

    def has_unsaved_changes(self) -> bool:
        """Whether a background task, stream or WebSocket handler has assigned something since the response started."""
        if self._failed:
            return False
        try:
            return self.handle.has_unsaved_changes()
        except SessionCoreError:  # what is assigned cannot be stored, as saving it will say
            return True

    async def save_late(self) -> None:
        """Save it. The response has already started, so a failure is reported as an event."""
        reason = "no_session"  # a new session would need a cookie, which can no longer be sent
        try:
            if self.handle.snapshot is not None:
                await self.handle.save()
                return
        except SessionCoreError as error:
            reason = error.code
        await self._report_unsaved(reason)

    async def leave_behind(self, error: BaseException) -> None:
        """Handle an error after the response started: save what the handler assigned if only the client has disconnected."""
        if not self.handle.response_started or self._replaced or not self.has_unsaved_changes():
            return
        if isinstance(error, self._services.framework.disconnects.kinds):
            await self.save_late()
        else:
            await self._report_unsaved("handler_failed")

    async def answer_with_cookie(self, error: Exception) -> None:
        """Answer an exception of inner middleware here if the session has a cookie to send; outside it would be lost."""
        if self._replaced:
            return
        if self.handle.response_started or self.handle.cookie_action is None or self._scope["type"] != "http":
            raise error
        await self._replace(error)

    def _stay_open(self) -> None:
        """Register a WebSocket or a streaming response, to close it when the session ends."""
        # A background task of the handler may still call `receive`: nothing is left to close.
        if (connections := self._services.connections) is not None and not self._over:
            kind = "websocket" if self._scope["type"] == "websocket" else "stream"
            headers: Headers = (self._head or {}).get("headers") or ()
            sized = any(name.lower() == b"content-length" for name, _ in headers)
            self.live = LiveConnection(connections, self.handle, kind, self._receive, self._send, self._task, sized=sized)

    async def _report_unsaved(self, reason: str) -> None:
        await self._services.lifecycle.events.emit("session.unsaved", handle=self.handle.handle, reason=reason)

    async def _replace(self, error: Exception) -> None:
        async def send(message: Message) -> None:
            if message["type"] in STARTS:
                if self._carrier.needs_resign:
                    await self._resign()
                message = self._begun(message)
            await self._send(message)

        self._replaced = True
        await self._services.framework.answer_error(self._scope, self._receive, send, error)

    async def _start(self, start: Any) -> None:  # noqa: ANN401 - a message of any kind that starts a response
        """Save the handler's assignments, then start the response; after that the cookie cannot change."""
        handle = self.handle
        # The handler failed: its unsaved assignments are dropped, what it saved stays.
        if start.get("status", 0) < _SERVER_ERROR:
            try:
                if handle.save_first is not None:
                    await handle.save_first()
                if handle.has_to_save():
                    await handle.save()
                if handle.has_to_confirm():
                    await handle.confirm()
            except SessionCoreError as error:
                if start["type"] != "http.response.start":
                    raise
                await self._replace(error)
                return
        accepting = start["type"] == "websocket.accept"
        if self._carrier.needs_resign and not accepting:  # Granian drops the headers of an accept
            await self._resign()
        await (self._send if self.live is None else self.live.send)(self._begun(start))
        if accepting:
            self._stay_open()

    def _begun(self, start: Any) -> Any:  # noqa: ANN401 - likewise
        """Return the start message with cookie and caching headers; later changes cannot reach the browser."""
        handle = self.handle
        handle.response_started = True
        self._store_time.over = True  # a WebSocket or a stream may go on for hours: each of its store calls has its own time
        if handle.loaded:
            if start.get("status", 0) >= _SERVER_ERROR:
                self._failed = True
            headers: Headers = start.get("headers") or ()
            if (action := handle.cookie_action) is not None:
                headers = self._carrier.with_id(headers, handle)
            if start["type"] != "websocket.accept":
                private = handle.snapshot is not None or action is not None
                headers = with_caching(headers, private=private, vary=self._services.vary)
            # A copy, always: Litestar's response cache keeps the message, and would replay this visitor's cookie to others.
            start = {**start, "headers": headers}
        self._head = start
        return start

    async def _resign(self) -> None:
        """Set the cookie again, signed with the first secret."""
        if self.handle.snapshot is not None and self.handle.cookie_action is None:
            self.handle.cookie_action = "set"
            await self._services.lifecycle.events.emit("cookie.resigned", handle=self.handle.handle)


def with_caching(headers: Headers, *, private: bool, vary: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Add the header `vary` and, with a session, forbid caching."""
    for name, _ in headers:
        if name.lower() in _ABOUT_CACHING:
            break
    else:  # nearly always
        return [*headers, vary, _PRIVATE] if private else [*headers, vary]
    kept: list[tuple[bytes, bytes]] = []
    given = b""
    for header in headers:
        name = header[0].lower()
        if name == b"vary":
            given = given + b", " + header[1] if given else header[1]
        elif not private or name != b"cache-control":
            kept.append(header)
    named = {part.strip().lower() for part in given.split(b",")} - {b""}
    if b"*" not in named:
        missing = [part for part in vary[1].split(b", ") if part.lower() not in named]
        given = b", ".join(([given] if given else []) + missing)
    kept.append((b"vary", given))
    if private:
        kept.append(_PRIVATE)
    return kept
