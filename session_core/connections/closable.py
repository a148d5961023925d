"""A WebSocket or a response that can be closed while its handler runs. Independent of sessions and stores.

To the handler this looks like a disconnect of the client: `receive` reports it, and a stream's generator is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from session_core.asgi_types import Message, Receive, Send

__all__ = ("ASGI_DISCONNECTS", "ClosableConnection", "ConnectionEndedError", "Disconnects")

_CLOSE_SECONDS: Final = 1.0
"""Seconds for the server to send the close frame: a client that does not read must not block the handler."""


class ConnectionEndedError(OSError):
    """Raised by `send` on a WebSocket that was closed here, as servers do after a disconnect (ASGI, `send`)."""


class Disconnects(NamedTuple):
    """How a framework reports a WebSocket disconnect to a handler."""

    kinds: tuple[type[Exception], ...]
    """The exception types that the handler gets."""
    make: Callable[[int, str], Exception]
    """Returns what `send` raises, given the code and the reason that the WebSocket was closed with."""


ASGI_DISCONNECTS: Final = Disconnects((ConnectionEndedError,), lambda _, reason: ConnectionEndedError(reason))
"""For applications without a framework."""


class ClosableConnection:
    """One WebSocket, or one response whose body is not yet complete.

    `task` runs the handler. `sized`: the response has declared its length, so it cannot be ended early. `disconnects` is how the
    framework reports a disconnect.
    """

    __slots__ = (
        "_cancelled", "_code", "_disconnects", "_ended", "_over", "_reason", "_receive", "_released", "_send", "_sized", "_task",
        "_told", "_waiting", "kind",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        receive: Receive,
        send: Send,
        task: asyncio.Task[Any] | None,
        *,
        sized: bool = False,
        disconnects: Disconnects = ASGI_DISCONNECTS,
    ) -> None:
        self.kind = kind
        self._disconnects = disconnects
        self._receive = receive
        self._send = send
        self._task = task
        self._sized = sized
        self._code, self._reason = 1000, ""
        self._waiting: asyncio.Timeout | None = None
        self._ended = self._cancelled = False
        self._over = asyncio.Event()
        self._told = asyncio.Event()
        self._released = asyncio.Event()

    def stopped(self, error: BaseException) -> bool:
        """Whether the handler raised this error because the connection was closed here."""
        if isinstance(error, asyncio.CancelledError):
            return self._cancelled and self._task is not None and self._task.uncancel() == 0
        return self._ended and isinstance(error, self._disconnects.kinds)

    def leave(self) -> None:
        """The connection is over."""
        self._over.set()

    async def receive(self) -> Message:
        """Return the next message of the client, or a disconnect once the connection was closed here."""
        if self._ended:
            return await self._disconnect()
        message: Message | None = None
        try:
            async with asyncio.timeout(None) as self._waiting:
                message = await self._receive()
        except TimeoutError:
            if not self._ended:
                raise
        finally:
            self._waiting = None
            self._released.set()
        return await self._disconnect() if self._ended or message is None else message

    async def send(self, message: Message) -> None:
        """Pass a message on to the client, unless the connection was closed here."""
        if self._ended:
            await self._refuse(message)
            return
        if message["type"] == "websocket.close" or (message["type"] == "http.response.body" and not message.get("more_body")):
            self.leave()
        await self._send(message)

    def begin_close(self, code: int, reason: str) -> None:
        """Stop all messages in both directions; `finish_close` does the rest."""
        self._ended, self._code, self._reason = True, code, reason
        self._released.clear()
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())
        else:
            self._released.set()

    async def finish_close(self) -> None:
        """Close towards the client, then interrupt the handler."""
        with suppress(Exception):  # the client may be gone as well
            async with asyncio.timeout(_CLOSE_SECONDS):
                # Granian sends nothing while it waits for a message of the client.
                await self._released.wait()
                if not self._sized:  # shorter than declared: the server aborts it when the handler has returned
                    await self._send(self._close_message())
        # The handler is interrupted only now: servers drop the connection, and an unsent close frame, when it returns.
        self._told.set()

    async def closed(self) -> None:
        """Return when `finish_close` has closed the connection towards the client, or has given up."""
        await self._told.wait()

    async def cancel_after(self, seconds: float) -> None:
        """Cancel the handler when it has not ended in this time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        if not self._over.is_set() and self._task is not None:
            self._cancelled = self._task.cancel()

    async def _refuse(self, message: Message) -> None:
        if self.kind == "websocket":
            if message["type"] != "websocket.close":
                await self._told.wait()
                raise self._disconnects.make(self._code, self._reason)
            return
        # An error here would be logged as the application's fault. `receive` ends a stream; a handler that does not call it is
        # cancelled.
        await asyncio.Event().wait()

    def _close_message(self) -> Message:
        if self.kind == "websocket":
            return {"type": "websocket.close", "code": self._code, "reason": self._reason}
        return {"type": "http.response.body", "body": b"", "more_body": False}

    async def _disconnect(self) -> Message:
        await self._told.wait()
        if self.kind == "websocket":
            return {"type": "websocket.disconnect", "code": self._code}
        return {"type": "http.disconnect"}
