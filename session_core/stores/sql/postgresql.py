"""A connection to PostgreSQL through asyncpg, made so that PgBouncer may stand between.

What a pooler by transaction cannot keep is not used: no setting outlives its transaction (`SET LOCAL`), and statements have names
only where the connection leads to one server process.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from session_core.stores.sql.announcements import CHANNEL, notify
from session_core.stores.sql.link import Late, ServerClock
from session_core.stores.sql.urls.postgresql import parse_postgresql_url

if TYPE_CHECKING:
    from session_core.stores.announcements import Heard
    from session_core.stores.sql.statements import Statement

__all__ = ("PostgresqlDriver", "PostgresqlLink")

T = TypeVar("T")

_FACTS: Final = "SELECT pg_backend_pid(), extract(epoch FROM clock_timestamp())::float8"
_NAMED_STATEMENTS: Final = 100
_HAS_TRANSACTION_TIMEOUT: Final = 17
_LONGER_THAN_ANY: Final = 3600
_SERVER_FIRST: Final = 0.95
"""The part of the time after which the server gives up: its answer should come before the connection is given up."""
FAILURES: Final[tuple[type[Exception], ...]] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
)


class PostgresqlDriver:
    """See `Driver`."""

    dialect = "postgresql"
    failures = FAILURES

    def __init__(self, url: str) -> None:
        self._address = parse_postgresql_url(url)
        self.pool_size = self._address.pool_size
        self._is_pooled: bool | None = None
        """Whether a pooler is between; None before the first connection."""

    @property
    def pushes(self) -> bool:
        """See `Driver.pushes`. A pooler by transaction takes LISTEN, and forgets it."""
        return not self._is_pooled

    async def connect(self, seconds: float) -> PostgresqlLink:
        """See `Driver.connect`."""
        # Not before it is known that the server process behind a connection stays the same.
        named = self._address.named_statements
        if named is None:
            named = self._is_pooled is False
        async with asyncio.timeout(min(seconds, self._address.timeout)):
            connection = await asyncpg.connect(
                **self._address.arguments, timeout=_LONGER_THAN_ANY, statement_cache_size=_NAMED_STATEMENTS if named else 0
            )
            link = PostgresqlLink(connection)
            try:
                link.set_options(self._address.socket_options)
                await link.measure_clock()
            except BaseException:
                link.terminate()
                raise
        self._is_pooled = link.is_pooled
        return link

    async def listen(self, heard: Heard, seconds: float) -> None:
        """See `Driver.listen`."""
        link = await self.connect(seconds)
        lost = asyncio.Event()

        def notified(connection: object, process: int, channel: str, names: str) -> None:
            del connection, process, channel
            heard(names.split())

        def terminated(connection: object) -> None:
            del connection
            lost.set()

        try:
            async with asyncio.timeout(seconds):
                link.connection.add_termination_listener(terminated)
                await link.connection.add_listener(CHANNEL, notified)
            heard(None)
            while not lost.is_set():
                try:
                    async with asyncio.timeout(seconds):
                        await lost.wait()
                except TimeoutError:
                    async with asyncio.timeout(seconds):
                        await link.script("SELECT 1")
        finally:
            link.terminate()  # at once: a server that hangs won't complete a graceful close


class PostgresqlLink:
    """See `Link`."""

    dialect = "postgresql"

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - the driver's own
        self.connection = connection
        self.opened_at = self.answered_at = self.deadline = monotonic()
        self.clock = ServerClock()
        self.is_pooled = False
        """Whether a pooler answers in place of a server process of this connection's own."""
        self._unsent = ""
        """The begin of a transaction, which goes out with its first statement."""
        self._announced: list[str] = []
        self._limits: tuple[str, ...] = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        if connection.get_server_version().major >= _HAS_TRANSACTION_TIMEOUT:
            self._limits = (*self._limits, "transaction_timeout")

    def set_options(self, options: Mapping[int, int]) -> None:
        """Set options of TCP, and let the kernel ask now and then whether the other side is still there."""
        transport: Any = self.connection._transport  # noqa: SLF001 - there is no other way to it
        wire = transport.get_extra_info("socket")
        if wire is not None and wire.family != socket.AF_UNIX:
            if options.get(socket.SO_KEEPALIVE, 1):
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in options.items():
                if option != socket.SO_KEEPALIVE:
                    wire.setsockopt(socket.IPPROTO_TCP, option, value)

    @property
    def is_open(self) -> bool:
        """See `Link.is_open`."""
        return not self.connection.is_closed()

    async def measure_clock(self) -> None:
        """See `Link.measure_clock`."""
        await self.clock.measure(self._ask)

    async def _open(self, call: Awaitable[T]) -> T:
        """Await a call of the driver. Where the connection is lost between two messages, asyncpg may raise `AttributeError`."""
        try:
            return await call
        except AttributeError:
            if not self.connection.is_closed():
                raise
            msg = "the connection was closed during a call"
            raise asyncpg.ConnectionDoesNotExistError(msg) from None

    async def rows(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See `Link.rows`."""
        text, names = statement.postgresql
        if self._unsent:
            await self.script("")
        try:
            rows: Sequence[Sequence[Any]] = await self._open(self.connection.fetch(text, *self._arguments(names, values)))
        except asyncpg.DivisionByZeroError:
            raise Late from None
        self.answered_at = monotonic()
        return rows

    async def count(self, statement: Statement, values: Mapping[str, Any]) -> int:
        """See `Link.count`."""
        text, names = statement.postgresql
        if self._unsent:
            await self.script("")
        status = await self._open(self.connection.execute(text, *self._arguments(names, values)))
        self.answered_at = monotonic()
        return int(status.rpartition(" ")[2])

    async def script(self, text: str) -> None:
        """See `Link.script`."""
        unsent, self._unsent = self._unsent, ""
        await self._open(self.connection.execute(unsent + text))
        self.answered_at = monotonic()

    async def begin(self) -> None:
        """See `Link.begin`. Sent with the first statement: a round trip less."""
        milliseconds = int((self.deadline - monotonic()) * 1000 * _SERVER_FIRST)
        if milliseconds <= 0:
            raise Late
        limits = "".join(f"SET LOCAL {limit} = {milliseconds}; " for limit in self._limits)
        self._unsent = f"BEGIN ISOLATION LEVEL READ COMMITTED; {limits}"
        self._announced = []

    def announce(self, names: Sequence[str]) -> None:
        """See `Link.announce`."""
        self._announced += names

    async def commit(self) -> None:
        """See `Link.commit`. One message, so that nothing can come between looking at the clock and the commit."""
        until = self.clock.at(self.deadline)
        try:
            await self.script(
                f"{notify(self._announced)}SELECT 1 / (extract(epoch FROM clock_timestamp()) < {until!r})::int; COMMIT"
            )
        except asyncpg.DivisionByZeroError:
            raise Late from None

    async def rollback(self) -> None:
        """See `Link.rollback`."""
        self._unsent = ""
        if self.connection.is_in_transaction():
            await self.script("ROLLBACK")

    async def close(self, seconds: float) -> None:
        """See `Link.close`."""
        try:
            await self.connection.close(timeout=seconds)
        except FAILURES:
            self.terminate()

    def terminate(self) -> None:
        """See `Link.terminate`."""
        self.connection.terminate()

    async def _ask(self) -> float:
        process, time = await self._open(self.connection.fetchrow(_FACTS))
        self.is_pooled = process != self.connection.get_server_pid()
        return float(time)

    def _arguments(self, names: Sequence[str], values: Mapping[str, Any]) -> list[Any]:
        return [self.clock.at(self.deadline) if name == "deadline" else values[name] for name in names]
