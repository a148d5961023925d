"""How commands reach one Redis server, or the primary that Sentinels name, and what its errors mean; knows no session.

Every command that the store sends may be sent twice: reads and index entries by nature, scripts because they are told
(`session_core.stores.redis.scripts`). So a command whose connection was lost is sent once more on a new one, and decided there.
What took too long is not repeated: the time is up.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar, cast

from hiredis import ReplyError, pack_command

from session_core.stores.redis.connection import ConnectionLostError, Endpoint, Reply, report_outage, unavailable, word_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from redis.asyncio.connection import AbstractConnection

    from session_core.stores.redis.connection import SharedConnection
    from session_core.stores.redis.lua import Script
    from session_core.stores.redis.url import RedisTarget

__all__ = ("SCAN_COUNT", "Command", "RedisLink", "SingleLink", "Word", "gather")

_ATTEMPTS: Final = 3
SCAN_COUNT: Final = 1000

T = TypeVar("T")
Word: TypeAlias = bytes | str | int
"""A part of a command."""
_pack = cast("Callable[[tuple[Word, ...]], bytes]", pack_command)  # declared for tuples of one


class Command:
    """One command, or one run of a script."""

    __slots__ = ("_args", "_keys", "_script", "full", "replay")

    def __init__(self, args: Sequence[Word], keys: Sequence[bytes] = (), script: Script | None = None) -> None:
        self._args = args
        self._keys = keys
        self._script = script
        self.replay = False
        """It may have been run already."""
        self.full = False
        """The server does not know the script by its digest."""

    def packed(self) -> bytes:
        """The command as it goes over the wire."""
        if self._script is None:
            return _pack(tuple(self._args))
        name, script = (b"EVAL", self._script.text) if self.full else (b"EVALSHA", self._script.digest)
        return _pack((name, script, len(self._keys), *self._keys, b"1" if self.replay else b"", *self._args))


class RedisLink(Protocol):
    """Where commands go. Every method raises `StoreUnavailableError` when the servers do not do what they are asked."""

    clustered: bool
    """Whether the keys of one script must be in one slot."""
    keeps_within: float
    """Seconds in which one `get` or `run` is sure to answer or to raise."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        ...

    async def call(self, *args: Word) -> Reply:
        """Return the reply to a command whose second word is its key."""
        ...

    async def get(self, name: bytes) -> bytes | None:
        """Return the value of a string."""
        ...

    def run(self, script: Script, keys: Sequence[bytes], *args: Word) -> Awaitable[Reply]:
        """Return the result of a script; `args` follow the mark of a repetition."""
        ...

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of strings."""
        ...

    def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """Iterate over the names of strings, in pages; a name may come twice."""
        ...

    async def try_write(self, prefix: bytes) -> None:
        """Write something to every primary that vanishes by itself."""
        ...

    async def apart(self) -> AbstractConnection:
        """Return a connection of its own, not yet connected, to a server that hears what is published on any."""
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
        return await self._exchange(Command(args))

    async def get(self, name: bytes) -> bytes | None:
        """See `RedisLink.get`. Every request comes here: only what does not go as it should becomes a `Command`."""
        connection = self._endpoint.latest
        if connection is None:
            return cast("bytes | None", await self._exchange_from(asyncio.get_running_loop().time(), Command((b"GET", name))))
        began = connection.time()
        try:
            reply = await connection.send(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name))
        except ConnectionLostError as lost:
            if lost.late:
                report_outage("timeout")
        else:
            if reply is None or type(reply) is bytes:
                return reply
        return cast("bytes | None", await self._exchange_from(began, Command((b"GET", name))))

    async def run(self, script: Script, keys: Sequence[bytes], *args: Word) -> Reply:
        """See `RedisLink.run`. Every write comes here, and is made a `Command` where it must be sent again."""
        connection = self._endpoint.latest
        if connection is None:
            return await self._exchange_from(asyncio.get_running_loop().time(), Command(args, keys, script))
        began = connection.time()
        try:
            reply = await connection.send(_pack((b"EVALSHA", script.digest, len(keys), *keys, b"", *args)))
        except ConnectionLostError as lost:
            if lost.late:
                report_outage("timeout")
            command = Command(args, keys, script)
            command.replay = lost.sent
        else:
            if not isinstance(reply, ReplyError):
                return reply
            command = Command(args, keys, script)
            self._refused(reply, command, connection)  # raises unless the script was not run at all
        return await self._exchange_from(began, command)

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """See `RedisLink.read`."""
        values: list[bytes | None] = await self.call(b"MGET", *names) if names else []
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

    async def _exchange_from(self, began: float, command: Command) -> Reply:
        """The connection keeps the time of one command, this that of more attempts since `began`, in the loop's time."""
        try:
            async with asyncio.timeout_at(began + self.keeps_within):
                return await self._exchange(command)
        except TimeoutError:
            report_outage("timeout")

    async def _exchange(self, command: Command) -> Reply:
        reason = ""
        for _ in range(_ATTEMPTS):
            if not self._opened:
                report_outage("not open")
            connection = self._endpoint.current() or await self._endpoint.connected()
            try:
                reply = await connection.send(command.packed())
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
        """Return the reason when the command, which was not run, is worth sending again; raise when it is not."""
        word = word_of(error)
        if word == "NOSCRIPT" and not command.full:
            command.full = True
        elif "READONLY" in str(error):
            # It was the primary once. Who is now is asked anew, with a new connection.
            connection.close()
            return "READONLY"
        elif word in {"MOVED", "CLUSTERDOWN", "CROSSSLOT"}:
            report_outage("the server belongs to a cluster: redis+cluster://")
        else:
            report_outage(word)
        return word


async def gather(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Await all, and only then raise what one of them raised: nothing is left running."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
