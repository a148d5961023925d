"""Runs calls of several writes to their end, even if the caller is cancelled.

The lock of a session is held until its last write is answered. Otherwise, after a disconnect or a deadline, the next writer could
start while a write of this one is still in flight and arrives later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from types import CoroutineType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, cast

__all__ = ("CallsInFlight", "finished")

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE_SECONDS: Final = 3.0


class CallsInFlight:
    """The running calls of a store."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run the call in a separate task, which continues if the caller is cancelled."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait a while for the calls of this event loop, then cancel the rest."""
        loop = asyncio.get_running_loop()
        if tasks := {task for task in self._tasks if task.get_loop() is loop}:
            _, late = await asyncio.wait(tasks, timeout=_PATIENCE_SECONDS)
            for task in late:
                task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieve the exception: its caller may be gone


class _HasCalls(Protocol):
    calls: CallsInFlight


S = TypeVar("S", bound=_HasCalls)


def finished(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], CoroutineType[Any, Any, T]]:
    """Make a method of a store run to its end, even if its caller is cancelled."""

    @wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.calls.run(method(self, *args, **kwargs))

    return cast("Callable[Concatenate[S, P], CoroutineType[Any, Any, T]]", call)
