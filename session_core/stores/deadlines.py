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
        task = self.begin()
        if task is None:
            async with asyncio.timeout(self._seconds):
                return await call
        try:
            return await call
        except asyncio.CancelledError:
            if self.is_over(task):
                raise TimeoutError from None
            raise
        finally:
            self.end(task)

    def begin(self) -> asyncio.Task[Any] | None:
        """Start the time of the running task, for `end`; None where it needs a timer of its own.

        That is inside another call, also of one that is being ended and cleans up behind itself.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        running = self._running
        if task is None or task in running or task in self._expired or (self._loop is not loop and not self._serves(loop)):
            return None
        running[task] = deadline = (loop.time() + self._seconds, task.cancelling())
        if self._timer is None:
            self._timer = loop.call_at(deadline[0], self._check, loop)
        return task

    def is_over(self, task: asyncio.Task[Any]) -> bool:
        """Whether a cancelled task was cancelled for its time alone: cancelled by somebody else as well, it must stay so."""
        before = self._expired.pop(task, None)
        return before is not None and task.uncancel() <= before

    def end(self, task: asyncio.Task[Any]) -> None:
        """Stop the time of a task."""
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
