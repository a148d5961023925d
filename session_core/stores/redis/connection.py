"""One connection to one Redis server that all requests share; knows neither sessions nor scripts.

redis-py makes the connection (addresses, TLS, authentication, the database); then its socket is taken over by a protocol that
writes the commands of one turn of the event loop in one piece and hands out the replies in order. Nobody waits for another's
reply, nothing is checked out of a pool, and a caller that is cancelled leaves the connection as it is.

A connection that lets its oldest command wait longer than `timeout` seconds is broken off: what was sent before cannot be told
from what comes next, and a frozen server must not hold its clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, TypeVar

from hiredis import ProtocolError, Reader, ReplyError
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from session_core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio.connection import AbstractConnection

__all__ = ("ConnectionLostError", "Endpoint", "Reply", "SharedConnection", "report_outage", "result_of", "unavailable", "word_of")

T = TypeVar("T")
Reply: TypeAlias = Any
"""What a server answers: bytes, an integer, None, a list of these, or a `hiredis.ReplyError`."""

_INCOMPLETE: Final = object()
_AT_ONCE: Final = 8
"""Commands in one write: a third more increments per second than with all of a turn of the loop, up to 32, in one."""


class ConnectionLostError(Exception):
    """The connection ended before the reply came. `sent`: the server may have run the command; `late`: it took too long."""

    def __init__(self, *, sent: bool, late: bool) -> None:
        super().__init__("the connection was lost")
        self.sent = sent
        self.late = late


def unavailable(reason: str) -> StoreUnavailableError:
    """Return an outage. `reason` is ours or a server's code, never a server's message: those quote keys and values."""
    return StoreUnavailableError(f"the Redis session store is unavailable ({reason})")


def report_outage(reason: str) -> NoReturn:
    """Raise an outage, without what led to it."""
    raise unavailable(reason) from None


class SharedConnection(asyncio.Protocol):
    """Replies in the order of commands, on a transport that is connected already."""

    def __init__(self, writer: asyncio.StreamWriter, timeout: float) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.time = loop.time
        """The time of the event loop."""
        self._writer = writer  # a writer that is collected closes its transport
        self._transport = writer.transport
        self._timeout = timeout
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._unsent: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._late = False
        self.lost = False
        """Whether it is of no use any more."""
        self._transport.set_protocol(self)

    def send(self, packed: bytes) -> asyncio.Future[Reply]:
        """Send one command; the future becomes the reply (a `hiredis.ReplyError` is one) or a `ConnectionLostError`."""
        loop, unsent = self._loop, self._unsent
        future: asyncio.Future[Reply] = loop.create_future()
        if self.lost:
            future.set_exception(ConnectionLostError(sent=False, late=False))
            return future
        # Not each by itself: a transport writes at once, and each write is a system call here and another there. Nor all of a
        # turn of the loop, when there are many: the server works on the first while the others are being made.
        if not unsent:
            loop.call_soon(self._flush)
        unsent.append(packed)
        self._waiting.append((future, loop.time()))
        if len(unsent) >= _AT_ONCE:
            self._flush()
        if self._watch is None:
            self._watch = loop.call_later(self._timeout, self._check)
        return future

    def close(self) -> None:
        """Close at once; whoever waits for a reply is told that the connection was lost."""
        if self._loop.is_closed():
            self.lost = True  # nobody waits in a loop that is over, and its transports are, too
            return
        self._transport.abort()
        self._end()

    def data_received(self, data: bytes) -> None:
        """Hand out the replies."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _INCOMPLETE:
                future, _ = waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (ProtocolError, IndexError):
            # No Redis, or one that has said something unasked: whose reply comes next is anybody's guess.
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        del exc
        self._end()

    def _flush(self) -> None:
        unsent = self._unsent
        if unsent and not self.lost:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))
            unsent.clear()

    def _check(self) -> None:
        self._watch = None
        if self.lost or not self._waiting:
            return
        left = self._waiting[0][1] + self._timeout - self._loop.time()
        if left <= 0:
            self._late = True
            self.close()
        else:
            self._watch = self._loop.call_later(left, self._check)

    def _end(self) -> None:
        if self.lost:
            return
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        first_unsent = len(self._waiting) - len(self._unsent)
        for place, (future, _) in enumerate(self._waiting):
            if not future.done():
                future.set_exception(ConnectionLostError(sent=place < first_unsent, late=self._late))
                future.exception()  # whoever asked may have gone meanwhile
        self._waiting.clear()
        self._unsent.clear()
        self._transport.close()


class Endpoint:
    """The shared connection to one server, made when it is first needed and again after it was lost.

    `locate` returns a redis-py connection, not yet connected, to where the server is now.
    """

    def __init__(self, locate: Callable[[], Awaitable[AbstractConnection]], timeout: float) -> None:
        self._locate = locate
        self._timeout = timeout
        self._connecting: asyncio.Task[SharedConnection] | None = None
        self.latest: SharedConnection | None = None
        """The connection, where there is one; what is sent on one that was lost is lost as well."""

    def current(self) -> SharedConnection | None:
        """The connection, where there is one that was not lost."""
        return None if self.latest is None or self.latest.lost else self.latest

    async def connected(self) -> SharedConnection:
        """Return the connection; of many callers one connects. Raises `StoreUnavailableError`."""
        connection = self.current()
        if connection is not None:
            return connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        return await result_of(self._connecting)

    async def close(self) -> None:
        """Close the connection."""
        connecting, self._connecting = self._connecting, None
        known, self.latest = self.latest, None
        if connecting is not None and not connecting.get_loop().is_closed():
            connecting.cancel()
            await asyncio.wait([connecting])
        made, self.latest = self.latest, None  # it may have been done already, when it was cancelled
        for connection in (known, made):
            if connection is not None:
                connection.close()
                await asyncio.sleep(0)  # lets the transport close its socket

    def _connected(self, task: asyncio.Task[SharedConnection]) -> None:
        if self._connecting is task:
            self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self.latest = task.result()

    async def _connect(self) -> SharedConnection:
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._connect_once()
                except AuthenticationError:
                    raise
                except RedisConnectionError:
                    # The server was restarted, or a proxy moved, between our connecting and our first word.
                    return await self._connect_once()
        except (RedisError, OSError, TimeoutError) as error:
            report_outage(type(error).__name__)

    async def _connect_once(self) -> SharedConnection:
        connection = await self._locate()
        try:
            await connection.connect()  # type: ignore[no-untyped-call] # redis-py's own
            return _take_over(connection, self._timeout)
        finally:
            await connection.disconnect(nowait=True)  # nothing is left of it once it was taken over


def _take_over(connection: AbstractConnection, timeout: float) -> SharedConnection:
    writer = connection._writer  # noqa: SLF001 - redis-py has no public way to hand its socket over
    if writer is None:
        report_outage("closed")
    connection._writer = connection._reader = None  # noqa: SLF001
    return SharedConnection(writer, timeout)


async def result_of(task: asyncio.Task[T]) -> T:
    """Return the result of a task that several wait for: one that gives up does not fail the others."""
    await asyncio.wait([task])
    if task.cancelled():
        report_outage("closed")
    return task.result()


def word_of(error: ReplyError) -> str:
    """The code of a Redis error: its first word."""
    return str(error).partition(" ")[0]
