"""Batches the calls of one turn of the event loop into one statement for each kind.

A batch has the calls made until the end of the turn, without a timer. Calls made while all senders are busy form the next batch.

Each call has its own deadline and result. Calls that a batch could not decide (a row locked by another transaction, a lost
connection) are sent one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from session_core.errors import SessionCoreError, StoreUnavailableError
from session_core.stores.sql.link import Late, Link

if TYPE_CHECKING:
    from session_core.stores.sql.database import SqlDatabase

__all__ = ("UNDECIDED", "Batches", "Call", "Undecided")

T = TypeVar("T")
R = TypeVar("R")

_MOST: Final = 200
"""Calls in one batch, which is then decoded in about a millisecond."""
_MOST_BYTES: Final = 1024 * 1024
"""The data in one batch: some milliseconds. A larger session is sent alone, so that no server refuses others because of it."""


class Undecided:
    """The type of `UNDECIDED`."""


UNDECIDED: Final = Undecided()
"""Instead of a result: the batch has not decided this call."""


class Call(Generic[T, R]):
    """One waiting call: its arguments, deadline and future."""

    __slots__ = ("asked", "deadline", "key", "result")

    def __init__(self, key: str, asked: T, deadline: float, result: asyncio.Future[R]) -> None:
        self.key = key
        self.asked = asked
        self.deadline = deadline
        self.result = result

    def settle(self, result: R | SessionCoreError) -> None:
        """Pass the result, or the error, to the caller if it still waits."""
        if self.result.done():
            return
        if isinstance(result, SessionCoreError):
            self.result.set_exception(result)
        else:
            self.result.set_result(result)


class Batches(Generic[T, R]):
    """Calls of one kind.

    `together` sends a batch and returns the result of each call: a value, an error, or `UNDECIDED`. `alone` decides one call,
    knowing whether the batch may have been applied without an answer. With `distinct` no key is twice in a batch. `bytes_of` is
    how much data a call sends.
    """

    def __init__(
        self,
        database: SqlDatabase,
        *,
        together: Callable[[Link, Sequence[Call[T, R]]], Awaitable[Sequence[R | SessionCoreError | Undecided]]],
        alone: Callable[[Call[T, R], bool], Awaitable[R]],
        senders: int,
        distinct: bool,
        bytes_of: Callable[[T], int] = lambda _: 0,
    ) -> None:
        self._database = database
        self._together = together
        self._alone = alone
        self._free_senders = senders
        self._distinct = distinct
        self._bytes_of = bytes_of
        self._starting = False
        self._waiting: list[Call[T, R]] = []

    async def call(self, key: str, asked: T) -> R:
        """Return the result of one call. Raises its refusal, and `StoreUnavailableError`."""
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(Call(key, asked, self._database.deadline(), result))
        if self._free_senders and not self._starting:
            self._starting = True
            self._database.spawn(self._send())
        return await result

    async def _send(self) -> None:
        """Send batches until no call waits."""
        self._starting = False
        self._free_senders -= 1
        try:
            while self._waiting:
                await self._send_one()
        finally:
            self._free_senders += 1

    async def _send_one(self) -> None:
        batch: list[Call[T, R]] = []
        try:
            # Until the earliest deadline: then the others use another connection.
            async with self._database.pool.lend(min(call.deadline for call in self._waiting)) as link:
                batch = self._take()
                results = await self._together(link, batch) if batch else ()
        except (StoreUnavailableError, Late) as error:
            self._failed(error, batch)
        except self._database.driver.failures as error:
            self._failed(error, batch)
        else:
            for call, result in zip(batch, results, strict=True):
                if isinstance(result, Undecided):
                    self._database.spawn(self._decide(call, uncertain=False))
                else:
                    call.settle(result)

    def _failed(self, error: Exception, batch: Sequence[Call[T, R]]) -> None:
        """Send the calls of a batch without an answer one by one; without a connection all fail."""
        for call in batch:
            self._database.spawn(self._decide(call, uncertain=True))
        if batch:
            return
        outage = error if isinstance(error, StoreUnavailableError) else self._database.unavailable(error, not_applied=True)
        now = monotonic()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if isinstance(error, TimeoutError) and call.deadline > now:
                self._waiting.append(call)
            else:
                call.settle(outage)

    async def _decide(self, call: Call[T, R], *, uncertain: bool) -> None:
        if call.result.done():
            return
        try:
            call.settle(await self._alone(call, uncertain))
        except SessionCoreError as error:
            call.settle(error)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            call.result.set_exception(error)

    def _take(self) -> list[Call[T, R]]:
        """Return the calls of the next batch."""
        waiting, self._waiting = self._waiting, []
        taken: list[Call[T, R]] = []
        keys: set[str] = set()
        size = 0
        now = monotonic()
        for call in waiting:
            if call.result.done():
                continue  # its caller was cancelled
            if call.deadline <= now:
                msg = "the session store did not start the step in time"
                call.settle(StoreUnavailableError(msg, not_applied=True))
                continue
            more = self._bytes_of(call.asked)
            if len(taken) >= _MOST or (self._distinct and call.key in keys) or (taken and size + more > _MOST_BYTES):
                self._waiting.append(call)
            else:
                taken.append(call)
                keys.add(call.key)
                size += more
        return taken
