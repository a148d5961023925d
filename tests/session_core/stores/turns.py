"""Runs calls of several processes step by step in random order; a test may kill one of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from contextlib import suppress

from session_core.errors import StoreError
from session_core.stores.base import SessionStore

_SETTLED = 12
"""Turns of the event loop after which every call has reached its next step."""


class Turns:
    """During `play` one waiting step runs at a time; at other times all steps run. Steps of a killed process have no effect."""

    def __init__(self) -> None:
        self.running = False
        self.dead: set[int] = set()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def take(self, process: int) -> None:
        if process in self.dead:
            raise asyncio.CancelledError
        if self.running:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((process, future))
            await future

    async def play(
        self, calls: Sequence[Coroutine[object, object, object]], chance: random.Random, *, killed: int | None = None
    ) -> list[object]:
        """Run one call for each process, step by step in random order; the first is killed after `killed` steps.

        Return the outcomes: the returned value, the type of the error, or "killed".
        """
        self.running = True
        tasks = [asyncio.create_task(_outcome(call)) for call in calls]
        # Uneven speeds: with equal speeds a long call would never be far ahead of a short one.
        speeds = [10 ** chance.uniform(-1.5, 1.5) for _ in calls]
        made = 0
        while not all(task.done() for task in tasks):
            for _ in range(_SETTLED):
                await asyncio.sleep(0)
            if made == killed and 0 not in self.dead:
                self.dead.add(0)
                for process, future in self._waiting:
                    if process == 0:
                        future.cancel()
                tasks[0].cancel()
                with suppress(asyncio.CancelledError):
                    await tasks[0]
            self._waiting = [each for each in self._waiting if not each[1].done()]
            if self._waiting:
                (place,) = chance.choices(range(len(self._waiting)), [speeds[process] for process, _ in self._waiting])
                process, future = self._waiting.pop(place)
                made += process == 0
                future.set_result(None)
        self.running = False
        while self._waiting:  # the code after the response runs
            self._waiting.pop()[1].set_result(None)
            await asyncio.sleep(0)
        return ["killed" if task.cancelled() else task.result() for task in tasks]


async def _outcome(call: Coroutine[object, object, object]) -> object:
    try:
        return await call
    except StoreError as error:
        return type(error)


async def live(store: SessionStore, *keys: str) -> list[str]:
    """Return those keys that are live."""
    return [key for key in keys if await store.load(key) is not None]
