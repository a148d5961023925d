"""One connection to one Redis server that all requests share. Independent of sessions and scripts.

redis-py makes the connection (addresses, TLS, authentication, the database); then a protocol takes over its socket, which writes
the commands of one turn of the event loop together and returns the replies in order (pipelining). No request waits for the reply
of another, there is no pool, and cancelling a caller does not break the connection.

A connection whose oldest command waits longer than `timeout` seconds is closed: late replies could not be matched to commands,
and a frozen server must not block its clients.

**Late commands.** A frozen server runs the commands it has received when it resumes, long after the caller's timeout, even if the
connection was closed. So every script gets the deadline in the server's own time (`ServerClock`) and compares it itself
(`in_time.lua`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, TypeVar

from hiredis import ProtocolError, Reader, ReplyError
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from session_core.errors import StoreUnavailableError
from session_core.stores.cancellation import keeping_cancellation

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

__all__ = (
    "ConnectionLostError", "Endpoint", "Reply", "ServerClock", "SharedConnection", "report_outage", "result_of", "unavailable",
    "word_of",
)  # fmt: skip

T = TypeVar("T")
Reply: TypeAlias = Any
"""A reply: bytes, an integer, None, a list of these, or a `hiredis.ReplyError`."""

_INCOMPLETE: Final = object()
_AT_ONCE: Final = 8
"""Commands in one write: a third more increments per second than with all of a turn of the loop, up to 32, in one."""
_TIME: Final = b"*1\r\n$4\r\nTIME\r\n"
_CLOCK_SECONDS: Final = 10.0
"""Seconds between two readings of the server's clock; also the time to detect a dead idle connection."""
_DRIFT: Final = 0.001
"""The largest drift between two clocks, in seconds per second: NTP corrects each by half of that."""
_FOR_THE_REPLY: Final = 1 / 16
"""The part of its time that a command leaves for the reply, so that a step at its deadline is still answered in time."""


class ConnectionLostError(Exception):
    """The connection ended before the reply. `sent`: the server may have run the command; `late`: it timed out."""

    def __init__(self, *, sent: bool, late: bool) -> None:
        super().__init__("the connection was lost")
        self.sent = sent
        self.late = late


def unavailable(reason: str, *, not_applied: bool = False) -> StoreUnavailableError:
    """Return an outage. `reason` is our own or a server's error code, never its message, which quotes keys and values."""
    return StoreUnavailableError(f"the Redis session store is unavailable ({reason})", not_applied=not_applied, kind=reason)


def report_outage(reason: str) -> NoReturn:
    """Raise an outage without its cause."""
    raise unavailable(reason) from None


class ServerClock:
    """Converts `time.monotonic` to the server's time (`TIME`): slightly too early, never too late.

    The server read its clock between the sending of TIME and the reply, so it is ahead of ours by `server - received` at least
    and by `server - sent` at most. The lower bound is used. That of an older reading may be closer, and is kept, less what the
    clocks may have drifted since, until a newer reading shows that it is too high: then the server's clock was set back.

    Each connection has its own, so a failover changes nothing: a command runs on the server whose clock it was compared with.

    A clock that is set between the reading and the command: when it was set forward, the script refuses too early (LATE), and
    the caller reads the clock again. When it was set back, the script sees a command from the future, and refuses that, too,
    unless the command has been on its way for longer than the clock was set back by. So a late command takes effect only where
    the clock was set back during the stall itself, by nearly its length. A virtual machine that was suspended, and whose clock
    stood still with it, is such a case.
    """

    __slots__ = ("_ahead", "_read_at")

    def __init__(self) -> None:
        self._ahead = -inf
        self._read_at = 0.0

    def learn(self, sent: float, received: float, server: float) -> None:
        """Record a reading: when it was sent and received (`time.monotonic`), and the server's time. All in seconds."""
        known = self._ahead - (received - self._read_at) * _DRIFT
        least, most = server - received, server - sent
        self._ahead = least if known > most else max(least, known)
        self._read_at = received

    def window(self, now: float, deadline: float) -> tuple[int, int]:
        """Return two server times in milliseconds for a command sent now: the earliest time, and the deadline."""
        ahead = self._ahead - (now - self._read_at) * _DRIFT
        return int((now + ahead) * 1000), int((deadline - (deadline - now) * _FOR_THE_REPLY + ahead) * 1000)


class SharedConnection(asyncio.Protocol):
    """A pipelining protocol on a connected transport: replies arrive in the order of commands."""

    def __init__(self, writer: asyncio.StreamWriter, timeout: float) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._writer = writer  # a garbage-collected writer closes its transport
        self._transport = writer.transport
        self._timeout = timeout
        self._reader = Reader(notEnoughData=_INCOMPLETE)
        self._unsent: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._late = False
        self._clock = ServerClock()
        self.window = self._clock.window
        """See `ServerClock.window`."""
        self._next_reading = loop.call_later(_CLOCK_SECONDS, self._read_clock_again)
        self.lost = False
        """Whether it was closed or lost."""
        self._transport.set_protocol(self)

    def send(self, packed: bytes) -> asyncio.Future[Reply]:
        """Send one command; the future becomes the reply (a `hiredis.ReplyError` is one) or a `ConnectionLostError`."""
        loop, unsent = self._loop, self._unsent
        future: asyncio.Future[Reply] = loop.create_future()
        if self.lost:
            future.set_exception(ConnectionLostError(sent=False, late=False))
            return future
        # Not one by one: each write is a system call on both sides. Not all of a turn at once either: the server can process the
        # first ones while others are prepared.
        if not unsent:
            loop.call_soon(self._flush)
        unsent.append(packed)
        self._waiting.append((future, loop.time()))
        if len(unsent) >= _AT_ONCE:
            self._flush()
        if self._watch is None:
            self._watch = loop.call_later(self._timeout, self._check)
        return future

    async def read_clock(self) -> None:
        """Ask the server for its time. Raises `ConnectionLostError`, and `StoreUnavailableError` for another reply."""
        reply = await self._ask_time()
        if isinstance(reply, ReplyError):
            report_outage(word_of(reply))
        if self.lost:
            report_outage("not a Redis server")

    def close(self) -> None:
        """Close at once; every waiting caller gets a `ConnectionLostError`."""
        if self._loop.is_closed():
            self.lost = True  # its transports and timers ended with it
            return
        self._transport.abort()
        self._end()

    def data_received(self, data: bytes) -> None:
        """Pass the replies to their callers."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _INCOMPLETE:
                future, _ = waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (ProtocolError, IndexError):
            # Not a Redis reply, or an unexpected one: replies can no longer be matched.
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for a reply."""
        del exc
        self._end()

    def _ask_time(self) -> asyncio.Future[Reply]:
        sent = monotonic()
        future = self.send(_TIME)
        future.add_done_callback(partial(self._learn, sent))
        return future

    def _learn(self, sent: float, future: asyncio.Future[Reply]) -> None:
        if future.cancelled() or future.exception() is not None or isinstance(future.result(), ReplyError):
            return
        received = monotonic()
        match future.result():
            case [bytes() as seconds, bytes() as microseconds] if seconds.isdigit() and microseconds.isdigit():
                self._clock.learn(sent, received, int(seconds) + int(microseconds) / 1_000_000)
            case _:
                self.close()  # not a Redis server

    def _read_clock_again(self) -> None:
        if not self.lost:
            self._ask_time()
            self._next_reading = self._loop.call_later(_CLOCK_SECONDS, self._read_clock_again)

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
        self._next_reading.cancel()
        if self._watch is not None:
            self._watch.cancel()
        first_unsent = len(self._waiting) - len(self._unsent)
        for place, (future, _) in enumerate(self._waiting):
            if not future.done():
                future.set_exception(ConnectionLostError(sent=place < first_unsent, late=self._late))
                future.exception()  # its caller may have been cancelled meanwhile
        self._waiting.clear()
        self._unsent.clear()
        self._transport.close()


class Endpoint:
    """The shared connection to one server, created on first use and again after it was lost.

    `locate` returns a redis-py connection, not yet connected, to where the server is now.
    """

    def __init__(self, locate: Callable[[], Awaitable[AbstractConnection]], timeout: float) -> None:
        self._locate = locate
        self._timeout = timeout
        self._connecting: asyncio.Task[SharedConnection] | None = None
        self.latest: SharedConnection | None = None
        """The connection, if there is one; it may be lost."""

    def current(self) -> SharedConnection | None:
        """The connection, if there is one that is not lost."""
        return None if self.latest is None or self.latest.lost else self.latest

    async def connected(self) -> SharedConnection:
        """Return the connection; concurrent callers share one attempt. Raises `StoreUnavailableError`."""
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
        made, self.latest = self.latest, None  # it may have finished before the cancellation
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
                except (RedisConnectionError, ConnectionLostError):
                    # The server was restarted, or a proxy moved, between connecting and the first command.
                    return await self._connect_once()
        except (RedisError, OSError, TimeoutError, ConnectionLostError) as error:
            cause: BaseException | None = error
            # redis-py has one ConnectionError for all errors of the network. The original is in the chain: refused, unknown, TLS.
            while type(cause) is RedisConnectionError:
                cause = cause.__context__
            report_outage(type(cause or error).__name__)

    async def _connect_once(self) -> SharedConnection:
        connection = await self._locate()
        try:
            with keeping_cancellation():
                await connection.connect()  # type: ignore[no-untyped-call] # redis-py's own
            shared = _take_over(connection, self._timeout)
        finally:
            await connection.disconnect(nowait=True)  # its socket was taken over
        try:
            await shared.read_clock()
        except BaseException:
            shared.close()
            raise
        return shared


def _take_over(connection: AbstractConnection, timeout: float) -> SharedConnection:
    writer = connection._writer  # noqa: SLF001 - redis-py has no public way to hand its socket over
    if writer is None:
        report_outage("closed")
    connection._writer = connection._reader = None  # noqa: SLF001
    return SharedConnection(writer, timeout)


async def result_of(task: asyncio.Task[T]) -> T:
    """Return the result of a shared task; a cancelled caller does not cancel it for the others."""
    await asyncio.wait([task])
    if task.cancelled():
        report_outage("closed")
    return task.result()


def word_of(error: ReplyError) -> str:
    """The code of a Redis error: its first word."""
    return str(error).partition(" ")[0]
