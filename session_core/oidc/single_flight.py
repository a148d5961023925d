"""Runs an operation once for all concurrent callers of a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

from session_core.errors import SessionCoreError

__all__ = ("SingleFlight",)

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """At most one run per key at a time, in this process; concurrent callers get its result or its error."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[T]] = {}

    def is_running(self, key: Hashable) -> bool:
        """Whether a run for `key` is in progress."""
        return key in self._running

    async def run(self, key: Hashable, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """Join the run of `key`, or start one with `work`.

        A cancelled caller (disconnected client) does not cancel the run for the others. Each caller gets its own copy of an
        error, because an error is answered with data of one request: the page to which "try again" leads.
        """
        try:
            return await asyncio.shield(self.begin(key, work))
        except SessionCoreError as error:
            raise _copy(error).with_traceback(error.__traceback__) from error.__cause__

    def begin(self, key: Hashable, work: Callable[[], Coroutine[None, None, T]]) -> asyncio.Task[T]:
        """Return the run of `key`, started with `work` if there is none. A caller must shield it when awaiting."""
        task = self._running.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.create_task(work())
            self._running[key] = task
            task.add_done_callback(lambda done: self._finish(key, done))
        return task

    async def drain(self, seconds: float) -> None:
        """Wait for all runs of this event loop, at most `seconds`."""
        loop = asyncio.get_running_loop()
        if running := {task for task in self._running.values() if task.get_loop() is loop}:
            await asyncio.wait(running, timeout=seconds)

    def _finish(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            # Retrieve the exception, even without callers: asyncio would otherwise log it later.
            task.exception()


def _copy(error: SessionCoreError) -> SessionCoreError:
    copied = type(error).__new__(type(error), *error.args)  # not by `copy`, which needs an `__init__` with these arguments
    copied.__dict__.update(error.__dict__)
    return copied
