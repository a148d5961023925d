"""A time limit for many short calls at the price of one timer; knows no store.

`asyncio.timeout` makes and cancels a timer for each call, which takes longer than everything else around a call to a fast store.
Here all calls have the same limit, hence end in the order they began: one timer, for the oldest, is enough.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ("Deadlines",)

T = TypeVar("T")


class Deadlines:
    """Ends calls that take longer than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        # By task, in the order of their deadlines: when it is over, and how often the task had been cancelled before.
        self._running: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._expired: dict[asyncio.Task[Any], int] = {}

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what `call` returns. Raises `TimeoutError` when the time is up; `call` is cancelled then."""
        task = asyncio.current_task()
        # Inside another call, also of one that is being ended and cleans up behind itself: a timer of its own.
        if task is None or task in self._running or task in self._expired or not self._serves(task.get_loop()):
            async with asyncio.timeout(self._seconds):
                return await call
        loop = task.get_loop()
        deadline = loop.time() + self._seconds
        self._running[task] = (deadline, task.cancelling())
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._check, loop)
        try:
            return await call
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task as well: then it must stay cancelled.
            before = self._expired.pop(task, None)
            if before is not None and task.uncancel() <= before:
                raise TimeoutError from None
            raise
        finally:
            self._running.pop(task, None)
            if self._expired and self._expired.pop(task, None) is not None:
                task.uncancel()  # it came to another end while it was being cancelled

    def _serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the timer is, or can be made, that of `loop`: a store may be used in one loop after another."""
        if self._loop is not loop:
            if (self._running or self._expired) and self._loop is not None and not self._loop.is_closed():
                return False
            self._loop, self._timer = loop, None
            self._running.clear()
            self._expired.clear()
        return True

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return  # a timer left behind in a loop that lives on in another thread: these tasks are not its own to cancel
        self._timer = None
        now = loop.time()
        while self._running:
            task, (deadline, cancelled_before) = next(iter(self._running.items()))
            if deadline > now:
                self._timer = loop.call_at(deadline, self._check, loop)
                return
            del self._running[task]
            self._expired[task] = cancelled_before
            task.cancel()
