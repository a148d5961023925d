"""Closes WebSockets and streaming responses when their session ends: the ASGI side. Asks no store.

For the handler it is as if the client had hung up: `receive` says so, and a stream's generator is cancelled. For the client a
WebSocket is closed with 4401, and a stream ends.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from litestar.exceptions import WebSocketDisconnect

from session_core.connections.watch import ConnectionWatch
from session_core.ids import handle_of

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine
    from contextvars import Context

    from litestar.types import Message, Receive, ReceiveMessage, Send

    from session_core.clock import Clock
    from session_core.events import Events
    from session_core.sessions.session_facts import SessionFacts
    from session_core.sessions.snapshot import Snapshot
    from session_core.stores.guarded import GuardedStore

__all__ = ("SESSION_ENDED", "LiveConnection", "LiveConnections")

SESSION_ENDED: Final = 4401
"""The code that a WebSocket is closed with; guards refuse one with it, too."""
_REASON: Final = "session ended"
_CLOSE_SECONDS: Final = 1.0
"""For the farewell to be taken by the server: a client that reads nothing must not keep the handler."""
_GRACE_SECONDS: Final = 5.0
"""For a handler to notice, before it is cancelled."""


class LiveConnections:
    """All open connections of an application in this process. `interval` is in seconds, see `ConnectionWatch`."""

    def __init__(self, store: GuardedStore, clock: Clock, events: Events, *, interval: float, push: bool) -> None:
        self._store = store
        self._clock = clock
        self.events = events
        self._interval = interval
        self._push = push
        # By event loop: test clients have one for each connection, servers one for all.
        self._watches: dict[asyncio.AbstractEventLoop, ConnectionWatch] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        store.on_ended = self.hint

    def watch(self) -> ConnectionWatch:
        """Return the watch of the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._watches.get(loop)
        if found is None:
            for other in tuple(self._watches):
                if other.is_closed():
                    self._watches.pop(other, None)
            found = ConnectionWatch(
                self._store, self._clock, interval=self._interval, push=self._push, on_outage=self._report_outage
            )
            self._watches[loop] = found
        return found

    def hint(self, keys: Collection[str]) -> None:
        """Have a look at the connections of these sessions: this process has just ended or moved them."""
        if not self._watches:
            return
        here = asyncio.get_running_loop()
        for loop, watch in tuple(self._watches.items()):
            if loop is here:
                watch.hint(keys)
            else:
                with suppress(RuntimeError):  # that loop is closed
                    loop.call_soon_threadsafe(watch.hint, keys)

    async def close(self) -> None:
        """Stop watching; open connections are left to the server, which closes them."""
        watch = self._watches.pop(asyncio.get_running_loop(), None)
        if watch is not None:
            await watch.close()

    def spawn(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> None:
        """Run something that nobody waits for, with the context variables of the caller or in `context`."""
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report_outage(self, reason: str) -> None:
        self.spawn(self.events.emit("store.unavailable", reason=reason))


class LiveConnection:
    """One WebSocket that was accepted, or one response whose body is not yet complete.

    `task` is the one that runs the handler; `sized` says that the response has declared its length. Watched from the moment there
    is a session.
    """

    __slots__ = (
        "_cancelled", "_connections", "_context", "_ended", "_handle", "_key", "_kind", "_over", "_receive", "_released", "_send",
        "_sized", "_task", "_told", "_waiting", "_watch",
    )  # fmt: skip

    def __init__(
        self,
        connections: LiveConnections,
        handle: SessionFacts,
        kind: str,
        receive: Receive,
        send: Send,
        task: asyncio.Task[Any] | None,
        *,
        sized: bool,
    ) -> None:
        self._connections = connections
        self._handle = handle
        self._kind = kind
        self._receive = receive
        self._send = send
        self._task = task
        self._sized = sized
        self._context = copy_context()
        """Of the request: what is told of its end belongs to it, whoever ends it."""
        self._watch: ConnectionWatch | None = None
        self._key = ""
        self._waiting: asyncio.Timeout | None = None
        self._ended = self._cancelled = False
        self._over = asyncio.Event()
        self._told = asyncio.Event()
        self._released = asyncio.Event()
        self.enter()

    def stopped(self, error: BaseException) -> bool:
        """Whether the handler was left with this error because the session has ended: it is nobody's fault."""
        if isinstance(error, asyncio.CancelledError):
            return self._cancelled and self._task is not None and self._task.uncancel() == 0
        return self._ended and isinstance(error, WebSocketDisconnect)

    def enter(self) -> None:
        """Have the session watched, if there is one by now."""
        snapshot = self._handle.snapshot
        if self._watch is None and snapshot is not None and not self._over.is_set():
            self._watch, self._key = self._connections.watch(), snapshot.key
            self._watch.add(self, snapshot)

    def leave(self) -> None:
        """The connection is over."""
        self._over.set()
        if self._watch is not None:
            self._watch.remove(self, self._key)
            self._watch = None

    async def receive(self) -> ReceiveMessage:
        """Return what the client says; that it is gone, when the session has ended."""
        self.enter()
        if self._ended:
            return await self._disconnect()
        message: ReceiveMessage | None = None
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
        """Pass a message on; nothing more reaches the client when the session has ended."""
        self.enter()
        if self._ended:
            await self._refuse(message)
            return
        if message["type"] == "websocket.close" or (message["type"] == "http.response.body" and not message.get("more_body")):
            self.leave()
        await self._send(message)

    def end(self, reason: str) -> None:
        """See `Watched.end`."""
        self._ended = True
        self._released.clear()
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())
        else:
            self._released.set()
        self._connections.spawn(self._close(reason), self._context)

    def follow(self, session: Snapshot) -> None:
        """See `Watched.follow`."""
        if self._handle.key == self._key:
            self._handle.follow(session)
        self._key = session.key

    async def _close(self, reason: str) -> None:
        with suppress(Exception):  # the client may be gone as well
            async with asyncio.timeout(_CLOSE_SECONDS):
                # Granian sends nothing while it is waiting for the client to say something.
                await self._released.wait()
                if not self._sized:  # shorter than it was to be: the server breaks it off when the handler has returned
                    await self._send(self._farewell())
        # The handler hears of it only now: servers drop the connection of one that has returned, and the farewell with it.
        self._told.set()
        await self._connections.events.emit("connection.closed", handle=handle_of(self._key), reason=reason, kind=self._kind)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._over.wait()
        if not self._over.is_set() and self._task is not None:
            self._cancelled = self._task.cancel()

    async def _refuse(self, message: Message) -> None:
        if self._kind == "websocket":
            if message["type"] != "websocket.close":
                await self._told.wait()
                raise WebSocketDisconnect(detail=_REASON, code=SESSION_ENDED)
            return
        # An error would end up in the log as the application's fault. `receive` ends a stream; what does not listen is cancelled.
        await asyncio.Event().wait()

    def _farewell(self) -> Message:
        if self._kind == "websocket":
            return {"type": "websocket.close", "code": SESSION_ENDED, "reason": _REASON}
        return {"type": "http.response.body", "body": b"", "more_body": False}

    async def _disconnect(self) -> ReceiveMessage:
        await self._told.wait()
        if self._kind == "websocket":
            return {"type": "websocket.disconnect", "code": SESSION_ENDED}
        return {"type": "http.disconnect"}
