"""Sends commands to one Redis server, or to the primary that Sentinels name, and interprets errors. Independent of sessions.

Every command that the store sends may be sent twice: reads by nature, scripts because they know of it
(`session_core.stores.redis.scripts`). So a command whose connection was lost is sent again on a new one. A command that timed out
is not repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, cast

from hiredis import ReplyError, pack_command
from redis.exceptions import RedisError

from session_core.concurrency import together
from session_core.errors import StoreUnavailableError
from session_core.stores.cancellation import keeping_cancellation
from session_core.stores.deadlines import step_deadline
from session_core.stores.redis.connection import (
    ConnectionLostError,
    Endpoint,
    Reply,
    SharedConnection,
    report_outage,
    unavailable,
    word_of,
)

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from session_core.stores.redis.scripts import Script
    from session_core.stores.redis.url import Address, RedisTarget

__all__ = (
    "AT_ONCE", "SCAN_COUNT", "Command", "RedisLink", "SingleLink", "Word", "deadline_within", "exchange", "gather_all",
    "link_to_one", "portions",
)  # fmt: skip

_ATTEMPTS: Final = 3
SCAN_COUNT: Final = 1000
AT_ONCE: Final = 100
"""Keys in one command, and commands in one batch before other callers run: a millisecond of the server's time."""

T = TypeVar("T")
Word: TypeAlias = bytes | str | int
"""A part of a command."""
_pack = cast("Callable[[tuple[Word, ...]], bytes]", pack_command)  # typed for tuples of one


def deadline_within(seconds: float) -> float:
    """Return the deadline of a command that is sent now: that of the running step, and in `seconds` at the latest."""
    latest, deadline = monotonic() + seconds, step_deadline()
    return latest if deadline is None or deadline > latest else deadline


class Command:
    """One command, or one run of a script that must take effect by `deadline` (`time.monotonic`)."""

    __slots__ = ("_args", "_keys", "_script", "deadline", "full", "replay")

    def __init__(self, args: Sequence[Word], deadline: float, keys: Sequence[bytes] = (), script: Script | None = None) -> None:
        self._args = args
        self._keys = keys
        self._script = script
        self.deadline = deadline
        self.replay = False
        """It may have been run already."""
        self.full = False
        """The server must be sent the script again, because it does not know its digest."""

    def packed(self, connection: SharedConnection) -> bytes:
        """Return the encoded command for a connection."""
        if self._script is None:
            return _pack(tuple(self._args))
        name, script = (b"EVAL", self._script.text) if self.full else (b"EVALSHA", self._script.digest)
        earliest, latest = connection.window(monotonic(), self.deadline)
        mark = b"1" if self.replay else b""
        return _pack((name, script, len(self._keys), *self._keys, mark, earliest, latest, *self._args))


async def exchange(connection: SharedConnection, command: Command) -> Reply:
    """Send a command and return the reply. Raises `ConnectionLostError`.

    A script that answers LATE before its deadline has passed is sent again after a new reading of the server's clock, which was
    set since the last one.
    """
    reply = await connection.send(command.packed(connection))
    if isinstance(reply, ReplyError) and word_of(reply) == "LATE" and monotonic() < command.deadline:
        await connection.read_clock()
        reply = await connection.send(command.packed(connection))
    return reply


class RedisLink(Protocol):
    """Sends commands. Every method raises `StoreUnavailableError` when the servers fail."""

    clustered: bool
    """Whether the keys of one script must be in one slot."""
    keeps_within: float
    """Seconds within which one `get` or `run` returns or raises."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        ...

    async def call(self, *args: Word) -> Reply:
        """Return the reply to a read-only command whose second word is its key."""
        ...

    async def get(self, name: bytes) -> bytes | None:
        """Return the value of a string."""
        ...

    def run(self, script: Script, keys: Sequence[bytes], *args: Word, by: float | None = None) -> Awaitable[Reply]:
        """Return the result of a script; `args` follow those that every script has.

        It has no effect after `by` (`time.monotonic`), after the deadline of the running step, or after this call has raised.
        """
        ...

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of strings. Those of one hash tag are read atomically, unless there are very many."""
        ...

    def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """Iterate over the names of strings, in pages; a name may come twice."""
        ...

    async def try_write(self, prefix: bytes) -> None:
        """Write an expiring key to every primary."""
        ...

    async def apart(self) -> AbstractConnection:
        """Return a separate, unconnected connection to a server that receives all published messages."""
        ...


class SingleLink:
    """One server. `locate` finds it anew for each connection."""

    clustered = False

    def __init__(self, target: RedisTarget, locate: Callable[[], Awaitable[AbstractConnection]]) -> None:
        self._endpoint = Endpoint(locate, target.timeout)
        self.keeps_within = target.timeout
        self._locate = locate
        self._opened = False

    async def open(self) -> None:
        """See `RedisLink.open`."""
        await self.close()
        self._opened = True
        await self._endpoint.connected()

    async def close(self) -> None:
        """See `RedisLink.close`."""
        self._opened = False
        await self._endpoint.close()

    async def call(self, *args: Word) -> Reply:
        """See `RedisLink.call`."""
        return await self._exchange(Command(args, deadline_within(self.keeps_within)))

    async def get(self, name: bytes) -> bytes | None:
        """See `RedisLink.get`. Used by every request: only failures create a `Command`."""
        connection, deadline = self._endpoint.latest, monotonic() + self.keeps_within
        if connection is not None:
            try:
                reply = await connection.send(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name))
            except ConnectionLostError as lost:
                if lost.late:
                    report_outage("timeout")
            else:
                if reply is None or type(reply) is bytes:
                    return reply
        return cast("bytes | None", await self._exchange(Command((b"GET", name), deadline)))

    async def run(self, script: Script, keys: Sequence[bytes], *args: Word, by: float | None = None) -> Reply:
        """See `RedisLink.run`. Used by every write: a `Command` is created only to send it again."""
        connection = self._endpoint.latest
        now = monotonic()
        deadline, step = now + self.keeps_within, step_deadline()
        if step is not None and step < deadline:
            deadline = step
        if by is not None and by < deadline:
            deadline = by
        command: Command | None = None
        if connection is not None:
            earliest, latest = connection.window(now, deadline)
            packed = _pack((b"EVALSHA", script.digest, len(keys), *keys, b"", earliest, latest, *args))
            try:
                reply = await connection.send(packed)
            except ConnectionLostError as lost:
                if lost.late:
                    report_outage("timeout")
                command = Command(args, deadline, keys, script)
                command.replay = lost.sent
            else:
                if not isinstance(reply, ReplyError):
                    return reply
                command = Command(args, deadline, keys, script)
                self._refused(reply, command, connection)  # raises if the script may have run
        return await self._exchange(command or Command(args, deadline, keys, script))

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """See `RedisLink.read`."""
        values: list[bytes | None] = []
        for some in portions(names):
            values += await self.call(b"MGET", *some)
        return values

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """See `RedisLink.scan`."""
        cursor = b"0"
        while True:
            cursor, names = await self.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT)
            yield names
            if cursor == b"0":
                return

    async def try_write(self, prefix: bytes) -> None:
        """See `RedisLink.try_write`."""
        await self.call(b"SET", prefix + b"ping", b"", b"PX", 1000)

    async def apart(self) -> AbstractConnection:
        """See `RedisLink.apart`."""
        return await self._locate()

    async def _exchange(self, command: Command) -> Reply:
        """The connection bounds one command, this bounds several attempts."""
        try:
            async with asyncio.timeout(command.deadline - monotonic()):
                return await self._attempt(command)
        except TimeoutError:
            report_outage("timeout")

    async def _attempt(self, command: Command) -> Reply:
        reason = ""
        for _ in range(_ATTEMPTS):
            if not self._opened:
                report_outage("not open")
            try:
                connection = self._endpoint.current() or await self._endpoint.connected()
            except StoreUnavailableError as error:
                error.not_applied = not command.replay
                raise
            try:
                reply = await exchange(connection, command)
            except ConnectionLostError as lost:
                if lost.late:
                    report_outage("timeout")
                command.replay = command.replay or lost.sent
                reason = "connection lost"
                continue
            if not isinstance(reply, ReplyError):
                return reply
            reason = self._refused(reply, command, connection)
        raise unavailable(reason)

    def _refused(self, error: ReplyError, command: Command, connection: SharedConnection) -> str:
        """Return the reason to send the command, which was not run, again; raise if there is none."""
        word = word_of(error)
        if word == "NOSCRIPT" and not command.full:
            command.full = True
        elif "READONLY" in str(error):
            # It is no longer the primary: locate the new one with a new connection.
            connection.close()
            return "READONLY"
        elif word in {"MOVED", "CLUSTERDOWN", "CROSSSLOT"}:
            report_outage("the server belongs to a cluster: redis+cluster://")
        elif word != "LATE":
            report_outage(word)
        elif monotonic() >= command.deadline:
            raise unavailable(word, not_applied=not command.replay)
        return word


def link_to_one(target: RedisTarget) -> SingleLink:
    """Return the link to one server: the one of the URL, or the primary that its Sentinels name."""
    if target.kind == "sentinel":
        return SingleLink(target, _SentinelLocator(target).locate)

    async def locate() -> AbstractConnection:
        return target.connection(target.addresses[0])

    return SingleLink(target, locate)


class _SentinelLocator:
    """Finds the primary of one service. The Sentinel that answered last is asked first."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._sentinels = list(target.addresses)

    async def locate(self) -> AbstractConnection:
        """Return a connection to the primary, not yet connected. Raises `StoreUnavailableError` when no Sentinel knows it."""
        for sentinel in tuple(self._sentinels):
            primary = await self._ask(sentinel)
            if primary is not None:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return self._target.connection(primary)
        reason = "no Sentinel knows the primary"
        raise unavailable(reason)

    async def _ask(self, sentinel: Address) -> Address | None:
        connection = self._target.sentinel_connection(sentinel)
        try:
            # One that is frozen must leave time for the others, and for the primary.
            async with asyncio.timeout(self._target.timeout / (len(self._sentinels) + 1)):
                with keeping_cancellation():
                    await connection.connect()  # type: ignore[no-untyped-call] # redis-py's own
                    await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.service)
                reply: Any = await connection.read_response()
        except (RedisError, OSError, TimeoutError):
            return None
        finally:
            await connection.disconnect(nowait=True)
        return (reply[0].decode(), int(reply[1])) if reply else None


def portions(items: Iterable[T]) -> Iterable[tuple[T, ...]]:
    """Divide into portions of `AT_ONCE`."""
    rest = iter(items)
    while some := tuple(islice(rest, AT_ONCE)):
        yield some


async def gather_all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Await all, `AT_ONCE` at a time, and only then raise what one of them raised: nothing is left running."""
    done: list[T] = []
    for some in portions(calls):
        done += await together(*some)
    return done
