"""The connection pool of one process: opened on demand, and discarded as a whole when one connection stops answering.

A dead connection is noticed only by a timeout. Other connections go to the same server, so all that were opened before are
discarded at once and their calls are retried on new ones: an outage costs one timeout, not one per connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from session_core.stores.sql.errors import is_lost, is_read_only

if TYPE_CHECKING:
    from session_core.stores.sql.link import Link

__all__ = ("Pool",)

_LEAST_SECONDS: Final = 0.01
_CLOSE_SECONDS: Final = 1.0
_SILENCE: Final = 0.25
"""The part of its time after which a silent connection makes all older ones suspect."""


class Pool:
    """At most `size` connections opened by `connect`, which gets a timeout in seconds."""

    def __init__(self, connect: Callable[[float], Awaitable[Link]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._idle: list[Link] = []
        self._busy: set[Link] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[asyncio.Future[Link], float]] = deque()
        self._trusted_since = 0.0
        """Connections opened before this instant are discarded."""
        self._closed = False

    @asynccontextmanager
    async def lend(self, deadline: float) -> AsyncIterator[Link]:
        """Lend a connection until `deadline`; if the work takes longer, it is closed, and all other open ones.

        Raises `TimeoutError` when there is none in time, and what the driver raises while it connects.
        """
        link = self._take_idle() or await self._wait(deadline)
        link.deadline = deadline
        link.answered_at = monotonic()
        seconds = max(deadline - link.answered_at, 0.0)
        end = asyncio.get_running_loop().call_later(seconds, self._end, link, seconds * _SILENCE)
        try:
            if link.clock.is_unknown:
                await link.measure_clock()
            yield link
        except Exception as error:
            if link.opened_at >= self._trusted_since and (not link.is_open or is_lost(error) or is_read_only(error)):
                # The server was restarted or is no longer the primary: discard the other connections as well.
                self._distrust()
            raise
        finally:
            end.cancel()
            self._release(link)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        self._trusted_since = monotonic()
        for link in self._busy:
            link.terminate()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(link.close(_CLOSE_SECONDS) for link in idle))
        self._fail_the_waiting(ConnectionError("the session store was closed"))

    def _end(self, link: Link, silence: float) -> None:
        """Close a connection whose work did not end in time and, if it was silent for long, all others."""
        link.terminate()
        if monotonic() - link.answered_at > silence:
            self._distrust()
            for other in self._busy:
                other.terminate()

    def _distrust(self) -> None:
        self._trusted_since = monotonic()
        while self._idle:
            self._idle.pop().terminate()

    def _release(self, link: Link) -> None:
        self._busy.discard(link)
        if self._closed or not link.is_open or link.opened_at < self._trusted_since:
            link.terminate()
            self._open_for_the_waiting()
        else:
            self._hand_on(link)

    def _take_idle(self) -> Link | None:
        while self._idle:
            link = self._idle.pop()
            if link.is_open:
                self._busy.add(link)
                return link
        return None

    async def _wait(self, deadline: float) -> Link:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Link] = loop.create_future()
        self._waiting.append((waiter, deadline))
        self._open_another(deadline)
        try:
            async with asyncio.timeout(max(deadline - monotonic(), 0.0)):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())  # assigned in the same turn in which the wait ended
            raise

    def _open_for_the_waiting(self) -> None:
        if self._waiting and not self._closed:
            self._open_another(self._waiting[-1][1])

    def _open_another(self, deadline: float) -> None:
        """Open a connection if the limit allows; the attempt ends with the waiter's deadline."""
        if len(self._busy) + len(self._idle) + len(self._opening) < self._size:
            task = asyncio.get_running_loop().create_task(self._open(max(deadline - monotonic(), _LEAST_SECONDS)))
            self._opening.add(task)

    async def _open(self, seconds: float) -> None:
        try:
            link = await self._connect(seconds)
        except TimeoutError:
            self._done_opening()
            self._open_for_the_waiting()
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            self._done_opening()
            if not self._busy:  # otherwise the server may refuse more connections, and one of these will become free
                self._fail_the_waiting(error)
        except BaseException:
            self._done_opening()
            raise
        else:
            self._done_opening()
            self._release(link)

    def _done_opening(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._opening.discard(task)

    def _hand_on(self, link: Link) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                self._busy.add(link)
                waiter.set_result(link)
                return
        self._idle.append(link)

    def _fail_the_waiting(self, error: Exception) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
