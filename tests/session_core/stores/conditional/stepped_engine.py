"""Conditional writes to a dictionary shared by simulated processes; a test chooses the next step and kills processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from itertools import count

from session_core.clock import Clock
from session_core.errors import StoreError
from session_core.stores.base import StoreCapabilities
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.store import ConditionalStore
from session_core.testing import FakeClock

CAPABILITIES = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=False)


_SETTLED = 12
"""Turns of the event loop after which every call has reached its next step."""


class Turns:
    """Lets one waiting step run at a time; when it is not running, all steps run. Steps of a killed process have no effect."""

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
        """Run one call for each process, step by step in an order by chance; the first is killed after `killed` steps.

        Return the outcomes: what was returned, the type of a refusal, or "killed".
        """
        self.running = True
        tasks = [asyncio.create_task(_outcome(call)) for call in calls]
        # Uneven speeds, because otherwise a long call would never be far ahead of a short one.
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


class SteppedEngine:
    """The view of one process on the shared dictionary: each name is read or written in a separate step."""

    def __init__(self, values: dict[str, Versioned], turns: Turns, process: int) -> None:
        self._values = values
        self._turns = turns
        self._process = process
        self._versions = count()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        found = []
        for name in names:
            await self._turns.take(self._process)
            found.append(self._values.get(name))
        return found

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        del seconds
        await self._turns.take(self._process)
        return self._write(name, Versioned(value, (self._process, next(self._versions))), version)

    async def delete(self, name: str, *, version: object) -> bool:
        await self._turns.take(self._process)
        return self._write(name, None, version)

    async def names(self, kind: str) -> AsyncIterator[str]:
        for name in [name for name in self._values if name[0] == kind]:
            yield name[2:]

    def _write(self, name: str, value: Versioned | None, version: object | None) -> bool:
        there = self._values.get(name)
        if (None if there is None else there.version) != version:
            return False
        if value is None:
            del self._values[name]
        else:
            self._values[name] = value
        return True


def processes(
    number: int, clock: Clock | None = None, kind: type[SteppedEngine] = SteppedEngine
) -> tuple[list[ConditionalStore], Turns, dict[str, Versioned]]:
    """Stores of several processes on one engine."""
    values: dict[str, Versioned] = {}
    turns = Turns()
    clock = clock or FakeClock()
    return [ConditionalStore(kind(values, turns, number), CAPABILITIES, clock=clock) for number in range(number)], turns, values


async def _outcome(call: Coroutine[object, object, object]) -> object:
    try:
        return await call
    except StoreError as error:
        return type(error)
