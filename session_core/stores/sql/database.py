"""Runs reads, writes and transactions on the database of the SQL store, with retries. Independent of sessions.

Every call has a deadline, which the server compares with its own clock in the deciding statement, or in the same message as the
commit. So a call that timed out here has no effect later, however long the server was frozen.

Work that the database rolled back (a deadlock, a serialization failure) runs again. So does work on a lost connection: it was
rolled back, unless the lost answer was that of a commit. Then the work runs again with `Earlier`, and compares what is stored to
decide whether the first run was applied.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from session_core.errors import StoreUnavailableError
from session_core.stores.deadlines import START_SECONDS, step_deadline
from session_core.stores.sql.errors import advice_for, is_lock_timeout, is_lost, is_read_only, is_undone, kind_of
from session_core.stores.sql.link import Driver, Late, Link
from session_core.stores.sql.pool import Pool
from session_core.stores.sql.tables import prepare_tables

if TYPE_CHECKING:
    from session_core.stores.sql.statements import Statement

__all__ = ("Earlier", "SqlDatabase")

T = TypeVar("T")

_ATTEMPTS: Final = 3
"""Attempts on new connections; after three lost ones the server counts as unavailable."""
_MARGIN: Final = 0.02
_CLOCK_WAS_SET: Final = 0.1
"""Seconds. If the server reports Late with more than that left, its clock was set and is measured again."""


class Earlier(Generic[T]):
    """Earlier runs of the same work whose commit got no answer."""

    __slots__ = ("results", "uncertain")

    def __init__(self, *, uncertain: bool = False) -> None:
        self.uncertain = uncertain
        """Whether one of them may have been applied."""
        self.results: list[T] = []
        """Their results (none for a single statement)."""


class SqlDatabase:
    """One database, in three ways of talking to it: reads, single writes and write transactions.

    `timeout` is in seconds, and holds where the caller has no deadline (`step_deadline`).
    """

    def __init__(self, driver: Driver, *, pool_size: int, timeout: float) -> None:
        self.driver = driver
        self._pool_size = pool_size
        self._timeout = timeout
        self._under_way: set[asyncio.Task[Any]] = set()
        self._pool: Pool | None = None

    async def open(self, *, with_tables: bool) -> None:
        """Check the tables, and create missing ones. May be called again.

        Raises `ConfigurationError` when the tables are missing and not to be made, or are those of another version.
        """
        await self.close()
        deadline = monotonic() + max(self._timeout, START_SECONDS) if step_deadline() is None else self.deadline()
        # A pool for this alone: by its connection the driver finds out what stands between, and how to open the others.
        pool = Pool(self.driver.connect, 1)
        try:

            async def work(link: Link, earlier: Earlier[None]) -> None:
                del earlier
                await prepare_tables(link, create=with_tables)

            await self._repeat(pool, work, deadline, Earlier(), transaction=True)
        finally:
            await pool.close()
        self._pool = Pool(self.driver.connect, self._pool_size)

    async def close(self) -> None:
        """Close every connection after the running calls; each has a deadline. Idempotent."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def deadline(self) -> float:
        """Return when a call that begins now must have taken effect."""
        now = monotonic()
        deadline = step_deadline()
        # Slightly before the caller's deadline, so that its timer does not hide that nothing was done.
        return now + self._timeout if deadline is None else deadline - (deadline - now) * _MARGIN

    @property
    def pool(self) -> Pool:
        """The connections. Raises `StoreUnavailableError` while the store is not open."""
        if self._pool is None:
            msg = "the session store is not open"
            raise StoreUnavailableError(msg, not_applied=True)
        return self._pool

    async def read(
        self, statement: Statement, values: Mapping[str, object], *, deadline: float | None = None
    ) -> Sequence[Sequence[Any]]:
        """Return the rows of one SELECT."""

        async def work(link: Link, earlier: Earlier[Sequence[Sequence[Any]]]) -> Sequence[Sequence[Any]]:
            del earlier
            return await link.rows(statement, values)

        return await self.write(work, deadline=deadline)

    async def write(self, work: Callable[[Link, Earlier[T]], Awaitable[T]], *, deadline: float | None = None) -> T:
        """Run `work`, whose one writing statement commits itself; it may run again (see `Earlier`)."""
        return await self._start(work, deadline, None, transaction=False)

    async def transact(
        self,
        work: Callable[[Link, Earlier[T]], Awaitable[T]],
        *,
        deadline: float | None = None,
        earlier: Earlier[T] | None = None,
    ) -> T:
        """Run `work` in one write transaction; it may run again (see `Earlier`)."""
        return await self._start(work, deadline, earlier, transaction=True)

    async def transact_on(self, link: Link, work: Callable[[Link, Earlier[T]], Awaitable[T]]) -> T:
        """Run `work` once in one write transaction on a given connection; raises the driver's errors, and `Late`."""
        return await _run(link, work, Earlier(), self.driver.failures, transaction=True)

    def unavailable(self, error: Exception, *, not_applied: bool) -> StoreUnavailableError:
        """Return the outage for an error, named by its kind only: drivers' messages quote values."""
        kind = "too late" if isinstance(error, Late) else kind_of(error)
        msg = f"the {self.driver.dialect} session store is unavailable ({kind}){advice_for(error)}"
        return StoreUnavailableError(msg, not_applied=not_applied, kind=kind)

    async def _start(
        self,
        work: Callable[[Link, Earlier[T]], Awaitable[T]],
        deadline: float | None,
        earlier: Earlier[T] | None,
        *,
        transaction: bool,
    ) -> T:
        """Run the work in a separate task: a disconnect of the client breaks no connection, and the deadline ends the work."""
        call = self._repeat(
            self.pool, work, self.deadline() if deadline is None else deadline, earlier or Earlier(), transaction=transaction
        )
        return await asyncio.shield(self.spawn(call))

    def spawn(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a call in a separate task; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(call)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have been cancelled

    async def _repeat(
        self,
        pool: Pool,
        work: Callable[[Link, Earlier[T]], Awaitable[T]],
        deadline: float,
        earlier: Earlier[T],
        *,
        transaction: bool,
    ) -> T:
        undone = lost = 0
        while True:
            link: Link | None = None
            try:
                async with pool.lend(deadline) as link:
                    return await _run(link, work, earlier, self.driver.failures, transaction=transaction)
            except Late as error:
                if link is None or deadline - monotonic() < _CLOCK_WAS_SET:
                    raise self.unavailable(error, not_applied=not earlier.uncertain) from error
                link.clock.forget()
            except self.driver.failures as error:
                gone = link is not None and (is_lost(error) or not link.is_open)
                if monotonic() >= deadline:
                    raise self.unavailable(error, not_applied=not earlier.uncertain) from error
                if is_undone(error) and not (is_lock_timeout(error) and deadline - monotonic() < 1):
                    undone = min(undone + 1, 5)
                elif (gone or is_lost(error) or is_read_only(error)) and lost < _ATTEMPTS - 1:
                    lost += 1
                else:
                    raise self.unavailable(error, not_applied=not earlier.uncertain) from error
            # A random pause, so that two deadlocked transactions do not repeat the deadlock.
            await asyncio.sleep(random.uniform(0, 0.001 * 2**undone) if undone else 0)  # noqa: S311 - no secret


async def _run(
    link: Link,
    work: Callable[[Link, Earlier[T]], Awaitable[T]],
    earlier: Earlier[T],
    failures: tuple[type[Exception], ...],
    *,
    transaction: bool,
) -> T:
    """Run the work once, and note if it is unknown whether it was applied."""
    committing: list[T] = []
    try:
        if transaction:
            await link.begin()
        result = await work(link, earlier)
        if transaction:
            committing.append(result)
            await link.commit()
    except BaseException as error:
        gone = isinstance(error, failures) and (is_lost(error) or not link.is_open) and not is_read_only(error)
        if gone and (committing or not transaction):
            earlier.uncertain = True
            earlier.results.extend(committing)
        if not isinstance(error, Exception):
            link.terminate()
        elif transaction and link.is_open:
            try:
                await link.rollback()
            except failures:
                link.terminate()
        raise
    return result
