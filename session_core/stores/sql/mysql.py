"""A connection to MySQL or MariaDB through asyncmy."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import asyncmy
from asyncmy.constants.CLIENT import FOUND_ROWS
from asyncmy.errors import IntegrityError

from session_core.errors import ConfigurationError
from session_core.stores.cancellation import keeping_cancellation
from session_core.stores.sql.link import Late, ServerClock, TakenError
from session_core.stores.sql.urls.mysql import parse_mysql_url

if TYPE_CHECKING:
    from session_core.stores.announcements import Heard
    from session_core.stores.sql.statements import Statement

__all__ = ("MysqlDriver", "MysqlLink")

FAILURES: Final[tuple[type[Exception], ...]] = (asyncmy.errors.Error, OSError, EOFError)
_LEAST_MARIADB: Final = (10, 6)
_LEAST_MYSQL: Final = (8, 0, 1)
_TOO_MANY_ROWS: Final = 1242
_DUPLICATE: Final = 1062
_LOCK_SECONDS: Final = 1
"""The shortest lock timeout of the server; then the work is rolled back and retried until the deadline."""
_SERVER_FIRST: Final = 0.95
"""The part of the time after which the server gives up: its answer should come before the connection is given up."""
# The level is no default everywhere, and needed: a snapshot taken before a lock was granted would not show what the lock's last
# owner wrote. It also spares the locks on gaps between keys. The time zone has no summer time, in which an hour comes twice.
_SESSION: Final = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION time_zone = '+00:00', "
    f"innodb_lock_wait_timeout = {_LOCK_SECONDS}, lock_wait_timeout = {_LOCK_SECONDS}"
)


class MysqlDriver:
    """See `Driver`."""

    dialect = "mysql"
    failures = FAILURES
    pushes = False

    def __init__(self, url: str) -> None:
        self._address = parse_mysql_url(url)
        self.pool_size = self._address.pool_size

    async def connect(self, seconds: float) -> MysqlLink:
        """See `Driver.connect`. Raises `ConfigurationError` for a server that is too old."""
        async with asyncio.timeout(min(seconds, self._address.timeout)):
            opening = asyncmy.connect(
                **self._address.arguments,
                autocommit=True,
                client_flag=FOUND_ROWS,
                binary_prefix=True,
                connect_timeout=ceil(seconds),
            )
            link: MysqlLink | None = None
            try:
                with keeping_cancellation():
                    link = MysqlLink(await opening)
                link.refuse_old_server()
                await link.script(_SESSION)
                await link.measure_clock()
            except BaseException:
                if link is not None:
                    link.terminate()
                raise
        return link

    async def listen(self, heard: Heard, seconds: float) -> None:
        """See `Driver.listen`: MySQL has no such channel."""


class MysqlLink:
    """See `Link`."""

    dialect = "mysql"

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - the driver's own
        self.connection = connection
        self.opened_at = self.answered_at = self.deadline = monotonic()
        self.clock = ServerClock()
        self._is_mariadb = "MariaDB" in connection.server_version
        self._no_limits = "; SET SESSION max_statement_time = DEFAULT" if self._is_mariadb else ""

    @property
    def is_open(self) -> bool:
        """See `Link.is_open`."""
        return bool(self.connection.connected)

    def refuse_old_server(self) -> None:
        """Refuse a server without SKIP LOCKED at start: the sweeper would fail later with a syntax error."""
        text = self.connection.server_version.removeprefix("5.5.5-")
        version = tuple(int(part) for part in text.partition("-")[0].split(".") if part.isdecimal())
        least = _LEAST_MARIADB if self._is_mariadb else _LEAST_MYSQL
        if version < least:
            needed = ".".join(map(str, least))
            msg = f"the SQL session store needs {'MariaDB' if self._is_mariadb else 'MySQL'} {needed} or later"
            raise ConfigurationError(msg)

    async def measure_clock(self) -> None:
        """See `Link.measure_clock`."""
        await self.clock.measure(self._ask)

    async def rows(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See `Link.rows`."""
        cursor = await self._run(statement, values)
        rows: Sequence[Sequence[Any]] = await cursor.fetchall()
        return rows

    async def count(self, statement: Statement, values: Mapping[str, Any]) -> int:
        """See `Link.count`."""
        return int((await self._run(statement, values)).rowcount)

    async def script(self, text: str) -> None:
        """See `Link.script`."""
        cursor = self.connection.cursor()
        await cursor.execute(text)
        while await cursor.nextset():
            pass
        self.answered_at = monotonic()

    async def begin(self) -> None:
        """See `Link.begin`."""
        seconds = (self.deadline - monotonic()) * _SERVER_FIRST
        if seconds <= 0:
            raise Late
        limits = ""
        if self._is_mariadb:
            # MySQL knows neither.
            limits = f"SET SESSION max_statement_time = {seconds:.3f}, idle_transaction_timeout = {int(seconds) + 1}; "
        await self.script(f"{limits}START TRANSACTION")

    def announce(self, names: Sequence[str]) -> None:
        """See `Link.announce`: MySQL has no channel."""

    async def commit(self) -> None:
        """See `Link.commit`. One message, so that nothing can come between looking at the clock and the commit."""
        until = self.clock.at(self.deadline)
        # A division by zero is no error here; two rows in place of one are.
        in_time = f"SELECT IF(unix_timestamp(sysdate(6)) < {until:.6f}, 1, (SELECT 1 UNION ALL SELECT 2))"
        try:
            await self.script(f"{in_time}; COMMIT{self._no_limits}")
        except asyncmy.errors.Error as error:
            if error.args[:1] == (_TOO_MANY_ROWS,):
                raise Late from None
            raise

    async def rollback(self) -> None:
        """See `Link.rollback`."""
        await self.script(f"ROLLBACK{self._no_limits}")

    async def close(self, seconds: float) -> None:
        """See `Link.close`."""
        try:
            async with asyncio.timeout(seconds):
                await self.connection.ensure_closed()
        except FAILURES:
            self.terminate()

    def terminate(self) -> None:
        """See `Link.terminate`."""
        with suppress(OSError, RuntimeError):
            transport = self.connection._transport  # noqa: SLF001 - closing waits for a server that may hang
            if transport is not None:
                transport.abort()
            self.connection.close()

    async def _run(self, statement: Statement, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the driver's own
        text, names = statement.mysql
        cursor = self.connection.cursor()
        arguments = tuple(self._argument(name, values) for name in names)
        try:
            await cursor.execute(text, arguments)
        except IntegrityError as error:
            if error.args[:1] == (_DUPLICATE,):
                raise TakenError from None
            raise
        self.answered_at = monotonic()
        return cursor

    def _argument(self, name: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what the statement takes
        if name == "deadline":
            return self.clock.at(self.deadline)
        value = values[name]
        return tuple(value) if isinstance(value, list) else value

    async def _ask(self) -> float:
        cursor = self.connection.cursor()
        await cursor.execute("SELECT unix_timestamp(sysdate(6))")
        ((time,),) = await cursor.fetchall()
        return float(time)
