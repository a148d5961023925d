"""Closes WebSockets and streaming responses when their session ends: the ASGI side. Makes no store calls.

To the handler this looks like a disconnect of the client: `receive` reports it, and a stream's generator is cancelled. The client
sees a WebSocket closed with 4401, or the end of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Final

from session_core.asgi_types import Message, Receive, Send
from session_core.clock import Clock
from session_core.connections.closable import ASGI_DISCONNECTS, ClosableConnection, Disconnects
from session_core.connections.watch import ConnectionWatch
from session_core.events import Events
from session_core.ids import handle_of
from session_core.sessions.handle import SessionHandle
from session_core.sessions.snapshot import Snapshot
from session_core.stores.guarded import GuardedStore

__all__ = ("SESSION_ENDED", "LiveConnection", "LiveConnections")

SESSION_ENDED: Final = 4401
"""The close code of a WebSocket; guards also refuse with it."""
_REASON: Final = "session ended"
_GRACE_SECONDS: Final = 5.0
"""Seconds for a handler to notice before it is cancelled."""


class LiveConnections:
    """All open connections of an application in this process. `interval` is in seconds, see `ConnectionWatch`."""

    def __init__(
        self,
        store: GuardedStore,
        clock: Clock,
        events: Events,
        *,
        interval: float,
        push: bool,
        disconnects: Disconnects = ASGI_DISCONNECTS,
    ) -> None:
        self.disconnects = disconnects
        self._store = store
        self._clock = clock
        self.events = events
        self._interval = interval
        self._push = push
        # By event loop: test clients use one per connection, servers one for all.
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
        """Check the connections of these sessions at once: this process has just ended or moved them."""
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
        """Stop watching; the server closes connections that are still open."""
        watch = self._watches.pop(asyncio.get_running_loop(), None)
        if watch is not None:
            await watch.close()

    def spawn(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> None:
        """Start a background task, with the context variables of the caller or in `context`."""
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report_outage(self, reason: str) -> None:
        self.spawn(self.events.emit("store.unavailable", reason=reason))


class LiveConnection(ClosableConnection):
    """A connection that is closed when its session ends; watched from the moment there is a session."""

    __slots__ = ("_connections", "_context", "_handle", "_key", "_watch")

    def __init__(
        self,
        connections: LiveConnections,
        handle: SessionHandle[Any],
        kind: str,
        receive: Receive,
        send: Send,
        task: asyncio.Task[Any] | None,
        *,
        sized: bool,
    ) -> None:
        super().__init__(kind, receive, send, task, sized=sized, disconnects=connections.disconnects)
        self._connections = connections
        self._handle = handle
        self._context = copy_context()
        """The context of the request, used for events about the end of the session."""
        self._watch: ConnectionWatch | None = None
        self._key = ""
        self.enter()

    def enter(self) -> None:
        """Watch the session, if there is one."""
        snapshot = self._handle.snapshot
        if self._watch is None and snapshot is not None and not self._over.is_set():
            self._watch, self._key = self._connections.watch(), snapshot.key
            self._watch.add(self, snapshot)

    def leave(self) -> None:
        """The connection is over."""
        super().leave()
        if self._watch is not None:
            self._watch.remove(self, self._key)
            self._watch = None

    async def receive(self) -> Message:
        """See `ClosableConnection.receive`."""
        self.enter()
        return await super().receive()

    async def send(self, message: Message) -> None:
        """See `ClosableConnection.send`."""
        self.enter()
        await super().send(message)

    def end(self, reason: str) -> None:
        """See `Watched.end`."""
        self.begin_close(SESSION_ENDED, _REASON)
        self._connections.spawn(self._close(reason), self._context)

    def follow(self, session: Snapshot) -> None:
        """See `Watched.follow`."""
        if self._handle.key == self._key:
            self._handle.follow(session)
        self._key = session.key

    async def _close(self, reason: str) -> None:
        await self.finish_close()
        await self._connections.events.emit("connection.closed", handle=handle_of(self._key), reason=reason, kind=self.kind)
        await self.cancel_after(_GRACE_SECONDS)
