"""A graceful stop: closes live connections, lets requests finish, then ends the lifespan. Independent of routes and stores.

    signal -> WebSockets closed with 1012, event streams ended -> server stops -> requests finish -> audit trail
           -> lifespan ends (store) -> exit

A server ends the lifespan when every response is complete. With an open event stream, Granian would wait until it is killed,
without writing the audit trail and closing the store. So the signal is handled here first. All steps together fit into the ten
seconds that Docker waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException

from session_core.connections.closable import ClosableConnection
from session_core.litestar.middleware import LITESTAR_DISCONNECTS

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, ReceiveMessage, Scope, Send

__all__ = ("KILL_SECONDS", "SILENT_SECONDS", "GracefulStop")

KILL_SECONDS: Final = 7
"""Seconds after the signal at which the server kills a worker that still waits, for example for a client that does not read."""
_SERVICE_RESTART: Final = 1012
"""The WebSocket close code of a server that restarts: the client may connect again."""
_REASON: Final = "the server stops"
_LIVE_SECONDS: Final = 1.0
"""Seconds for the handler of a live connection to end, before it is cancelled."""
_REQUEST_SECONDS: Final = 3.0
"""Seconds for requests to finish. More than the store's timeout, so that they end with 503 if its engine is frozen."""
_CANCEL_SECONDS: Final = 0.5
_LEFT_SECONDS: Final = 2.0
"""Seconds for the server to send the rest of finished responses, before the process ends."""
SILENT_SECONDS: Final = 30
"""For the headers of a connection's next request, and for the next part of a request's body."""
_UNAVAILABLE: Final = 503
_REQUEST_TIMEOUT: Final = 408
_REFUSAL: Final = [(b"content-length", b"0"), (b"retry-after", b"1"), (b"connection", b"close"), (b"cache-control", b"no-store")]


class GracefulStop:
    """ASGI wrapper around the whole application that tracks open connections and ends them.

    `flush` is awaited after all have ended, before steps that may be slow in an outage. It must limit its own time.
    """

    def __init__(self, app: ASGIApp, flush: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._flush = flush
        self._open: set[_Exchange] = set()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._owns_process = False
        self.begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket; refuse it when the stop has begun."""
        kind = scope["type"]
        if kind not in {ScopeType.HTTP, ScopeType.WEBSOCKET}:
            await self._app(scope, receive, send)
            return
        if self.begun:
            await _refuse(kind, send)
            return
        exchange = _Exchange(self, kind, receive, send)
        self._open.add(exchange)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except (Exception, asyncio.CancelledError) as error:
            if not exchange.was_stopped(error):
                raise
            if not exchange.started:
                await _refuse(kind, send)
        finally:
            exchange.leave()
            self._open.discard(exchange)
            self._changed.set()

    def begin(self) -> None:
        """Begin the stop; idempotent."""
        if not self.begun:
            self.begun = True
            for exchange in tuple(self._open):
                exchange.end_if_live()
            self.spawn(self._end())

    async def ended(self) -> None:
        """Return when a stop has begun and all connections have ended or were cancelled."""
        await self._ended.wait()

    def take_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the stop at the first signal for which a handler is added to `loop` from now on, and then call that handler.

        Later signals do nothing: Granian's handler blocks forever at its third call.
        """
        add, self._owns_process = loop.add_signal_handler, True

        def add_signal_handler(number: int, handler: Callable[..., object], *arguments: object) -> None:
            add(number, self._stop_once, partial(handler, *arguments))

        loop.add_signal_handler = add_signal_handler  # type: ignore[method-assign, assignment]

    def leave(self) -> None:
        """End the process soon: the lifespan is over, and what is still open has no request.

        Granian would wait for a client that has sent half of a request's head, up to its time limit.
        """
        if self.begun and self._owns_process:
            asyncio.get_running_loop().call_later(_LEFT_SECONDS, os._exit, 0)

    def _stop_once(self, tell_server: Callable[[], object]) -> None:
        if not self.begun:
            self.begin()
            self.spawn(self._pass_on(tell_server))

    async def _pass_on(self, tell_server: Callable[[], object]) -> None:
        # Granian waits for responses, not for WebSockets: it would drop them before their close frames are sent.
        for exchange in tuple(self._open):
            await exchange.closed()
        tell_server()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a background task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        await self._wait(_REQUEST_SECONDS)
        for exchange in tuple(self._open):
            exchange.cancel()
        await self._wait(_CANCEL_SECONDS)
        await self._flush()
        self._ended.set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:
                    self._changed.clear()
                    await self._changed.wait()


class _Exchange:
    """One running request or WebSocket."""

    __slots__ = ("_body_complete", "_cancelled", "_live", "_receive", "_send", "_stop", "_task", "started")

    def __init__(self, stop: GracefulStop, kind: str, receive: Receive, send: Send) -> None:
        self._stop = stop
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._live: ClosableConnection | None = None
        if kind == ScopeType.WEBSOCKET:
            self._live = ClosableConnection(kind, receive, send, self._task, disconnects=LITESTAR_DISCONNECTS)
        self._body_complete = self._cancelled = False
        self.started = False
        """Whether the response has begun, or this is a WebSocket, which is closed in its own way."""

    async def receive(self) -> ReceiveMessage:
        """Return the next message of the client. Raises `HTTPException` (408) if the body does not arrive."""
        if self._live is not None:
            received: ReceiveMessage = await self._live.receive()
            return received
        if self._body_complete or self.started:
            return await self._receive()
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                message: Any = await self._receive()
        except TimeoutError:
            raise HTTPException(status_code=_REQUEST_TIMEOUT) from None
        self._body_complete = not message.get("more_body")
        return message  # type: ignore[no-any-return]

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        begins_stream = False
        if message["type"] == "http.response.start":
            self.started = True
            begins_stream = _is_event_stream(message.get("headers") or ())
        await (self._send if self._live is None else self._live.send)(message)
        if begins_stream:
            self._live = ClosableConnection("stream", self._receive, self._send, self._task)
            if self._stop.begun:
                self.end_if_live()

    def end_if_live(self) -> None:
        """End a connection that would otherwise stay open: a WebSocket, an event stream."""
        if self._live is not None:
            self.started = True
            self._live.begin_close(_SERVICE_RESTART, _REASON)
            self._stop.spawn(self._finish(self._live))

    async def closed(self) -> None:
        """Return when a connection that was ended here is closed towards the client, or its time limit is over."""
        if self._live is not None:
            await self._live.closed()

    def cancel(self) -> None:
        """Cancel the handler after its time limit."""
        self._cancelled = self._task is not None and self._task.cancel()

    def was_stopped(self, error: BaseException) -> bool:
        """Whether the handler raised this error because of the stop."""
        if self._live is not None and self._live.stopped(error):
            return True
        cancelled = isinstance(error, asyncio.CancelledError) and self._cancelled
        return cancelled and self._task is not None and self._task.uncancel() == 0

    def leave(self) -> None:
        """The exchange is over."""
        if self._live is not None:
            self._live.leave()

    async def _finish(self, live: ClosableConnection) -> None:
        await live.finish_close()
        await live.cancel_after(_LIVE_SECONDS)


async def _refuse(kind: str, send: Send) -> None:
    if kind == ScopeType.WEBSOCKET:
        await send({"type": "websocket.close", "code": _SERVICE_RESTART, "reason": _REASON})
        return
    await send({"type": "http.response.start", "status": _UNAVAILABLE, "headers": _REFUSAL})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_event_stream(headers: Any) -> bool:  # noqa: ANN401 - pairs of bytes, in any collection
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
