"""Calls on the database of the SQL store: reads, writes, transactions, and what is run again; knows no session.

What the database undid and says so (a deadlock, a serialization failure) is run again. So is what was under way when the
connection was lost: nothing of it was done, unless the lost answer was the one to a commit. Then the work runs again knowing
that (`Earlier`), and decides by what is stored whether the first run was applied. What took too long is not repeated: the time
is up.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from session_core.errors import StoreUnavailableError
from session_core.stores.sql.engines import Engines, make_private_file
from session_core.stores.sql.errors import failures_of, is_lost, is_read_only, is_undone, kind_of, lacks_tables
from session_core.stores.sql.tables import check_tables, create_tables
from session_core.stores.sql.url import parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence

    from sqlalchemy import Executable
    from sqlalchemy.engine import Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ("Earlier", "SqlDatabase")

T = TypeVar("T")

_ATTEMPTS: Final = 3
"""On new connections. Each costs a connection to be set up, and a server that loses three in a row is not well."""


class Earlier(Generic[T]):
    """What is known of runs of the same work whose commit got no answer."""

    __slots__ = ("results", "uncertain")

    def __init__(self) -> None:
        self.uncertain = False
        """Whether one of them may have been applied."""
        self.results: list[T] = []
        """What they would have returned (nothing for a single statement, whose answer is the commit's)."""


class SqlDatabase:
    """One database, in three ways of talking to it: reads, single writes and write transactions."""

    def __init__(self, url: str, *, pool_size: int, timeout: float) -> None:
        self.url = parse_url(url)
        self.dialect = self.url.get_backend_name()
        self._pool_size = pool_size
        self._timeout = timeout
        self._under_way: set[asyncio.Task[Any]] = set()
        self._engines: Engines | None = None

    async def open(self, *, with_tables: bool) -> None:
        """Make the pools, and the file and tables where they are missing. A second call starts anew.

        Raises `ConfigurationError` when the tables are missing and not to be made, or are those of another version.
        """
        await self.close()
        self._engines = Engines(self.url, pool_size=self._pool_size, timeout=self._timeout)
        try:
            async with self._outages():
                if self.dialect == "sqlite":
                    await asyncio.to_thread(make_private_file, self.url.database or "")
                    await self._use_write_ahead_log()

            async def work(connection: AsyncConnection, earlier: Earlier[None]) -> None:
                del earlier
                if with_tables:
                    await create_tables(connection)
                await check_tables(connection)

            await self.transact(work)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection, when the calls under way have ended. Idempotent."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        engines, self._engines = self._engines, None
        if engines is not None and engines.checkpoints is not None:
            await engines.checkpoints.stop()
        for engine in engines.all if engines is not None else ():
            try:
                # A server that hangs does not answer a farewell either.
                async with asyncio.timeout(self._timeout):
                    await engine.dispose()
            except TimeoutError:
                await engine.dispose(close=False)

    async def read(self, statement: Executable, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        """Return the rows of one SELECT, without a transaction around it."""

        async def work(connection: AsyncConnection, earlier: Earlier[Sequence[Row[Any]]]) -> Sequence[Row[Any]]:
            del earlier
            return (await connection.execute(statement, parameters)).all()

        return await self._to_its_end(self._repeat(lambda engines: engines.reads, work, transaction=False))

    async def write(self, work: Callable[[AsyncConnection, Earlier[T]], Awaitable[T]]) -> T:
        """Run `work`, whose one writing statement commits itself; it may run again (see `Earlier`)."""
        return await self._to_its_end(self._repeat(lambda engines: engines.singles, work, transaction=False))

    async def transact(self, work: Callable[[AsyncConnection, Earlier[T]], Awaitable[T]]) -> T:
        """Run `work` in one write transaction; it may run again (see `Earlier`)."""
        return await self._to_its_end(self._repeat(lambda engines: engines.transactions, work, transaction=True))

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection that takes no place in a pool, and is closed afterwards; raises what the driver raises."""
        async with self._opened().reads.connect() as connection:
            await connection.run_sync(lambda connection: connection.detach())
            yield connection

    async def _to_its_end(self, call: Coroutine[Any, Any, T]) -> T:
        """Let a call end even if who waits for it is cancelled: clients that hang up would cost a connection each."""
        task = asyncio.create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else may be there any more to be told

    async def _repeat(
        self,
        way: Callable[[Engines], AsyncEngine],
        work: Callable[[AsyncConnection, Earlier[T]], Awaitable[T]],
        *,
        transaction: bool,
    ) -> T:
        async with self._outages():
            earlier: Earlier[T] = Earlier()
            undone = lost = 0
            while True:
                try:
                    return await _run(way(self._opened()), work, earlier, transaction=transaction)
                except DBAPIError as error:
                    if is_undone(error):
                        undone = min(undone + 1, 5)
                    elif (is_lost(error) or is_read_only(error)) and lost < _ATTEMPTS - 1:
                        # The server was restarted since this connection was last used, or another one is the primary now.
                        lost += 1
                    else:
                        raise
                # At random, or two that met in a deadlock meet there again. `_outages` bounds it all in time.
                await asyncio.sleep(random.uniform(0, 0.001 * 2**undone) if undone else 0)  # noqa: S311 - no secret

    def _opened(self) -> Engines:
        if self._engines is None:
            msg = "the session store is not open"
            raise StoreUnavailableError(msg)
        return self._engines

    async def _use_write_ahead_log(self) -> None:
        """Readers then never wait for the writer. Kept in the file; where a file system cannot, sessions work without."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            try:
                async with self._opened().reads.connect() as connection:
                    await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except DBAPIError as error:
                # SQLite does not wait by itself here when several processes start at once.
                if not is_undone(error) or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def _outages(self) -> AsyncIterator[None]:
        """Tell any failure of the database as an outage, by its kind alone: messages of drivers quote values."""
        failures = failures_of(self._engines.transactions.dialect.dbapi if self._engines else None)
        try:
            async with asyncio.timeout(self._timeout * 2):
                yield
        except failures as error:
            advice = "; its tables are missing or of another version: migrate the database" if lacks_tables(error) else ""
            msg = f"the {self.dialect} session store is unavailable ({kind_of(error)}){advice}"
            raise StoreUnavailableError(msg) from error


async def _run(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection, Earlier[T]], Awaitable[T]],
    earlier: Earlier[T],
    *,
    transaction: bool,
) -> T:
    """Run the work once, and note when it cannot be told whether it was applied."""
    committing: list[T] = []
    async with engine.connect() as connection:
        try:
            result = await work(connection, earlier)
            if transaction:
                committing.append(result)
                await connection.commit()
        except DBAPIError as error:
            if is_lost(error) and not is_read_only(error) and (committing or not transaction):
                earlier.uncertain = True
                earlier.results.extend(committing)
            raise
    return result
