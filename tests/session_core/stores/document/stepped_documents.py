"""Documents in a dictionary shared by simulated processes; a test chooses the next step and kills processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import StoreCapabilities
from session_core.stores.document.store import DocumentStore
from session_core.testing import FakeClock

CAPABILITIES = StoreCapabilities(atomic=False, indexed=True, shared=True, durable=True, native_expiry=False)


class Turns:
    """Lets one waiting step run at a time; when it is not running, all steps run."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.running = False

    async def take(self, process: int) -> None:
        if self.running:
            self.waiting[process] = asyncio.get_running_loop().create_future()
            await self.waiting[process]

    async def play(
        self, calls: Sequence[Coroutine[object, object, object]], chance: random.Random, *, killed: int | None = None
    ) -> list[object]:
        """Run one call for each process, step by step in an order by chance; the first is killed after `killed` steps.

        Return the outcomes: what was returned, the type of a refusal, or "killed".
        """
        self.running = True
        tasks = [asyncio.create_task(_outcome(call)) for call in calls]
        made = 0
        # Uneven speeds, because otherwise a long call would never be far ahead of a short one.
        speeds = [10 ** chance.uniform(-1.5, 1.5) for _ in calls]
        while not all(task.done() for task in tasks):
            while sum(not future.done() for future in self.waiting.values()) < sum(not task.done() for task in tasks):  # noqa: ASYNC110
                await asyncio.sleep(0)
            if killed is not None and made == killed and not tasks[0].done():
                self.waiting.pop(0).cancel()
                with suppress(asyncio.CancelledError):
                    await tasks[0]
                continue
            ready = sorted(self.waiting)
            if not ready:
                break  # all have ended meanwhile
            (process,) = chance.choices(ready, [speeds[each] for each in ready])
            made += process == 0
            self.waiting.pop(process).set_result(None)
            await asyncio.sleep(0)
        self.running = False
        return ["killed" if task.cancelled() else task.result() for task in tasks]


class SteppedDocuments:
    """The view of one process on the shared dictionary: each name is read or written in a separate step."""

    def __init__(self, values: dict[str, bytes], turns: Turns, process: int) -> None:
        self._values = values
        self._turns = turns
        self._process = process

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        found = []
        for name in names:
            await self._turns.take(self._process)
            found.append(self._values.get(name))
        return found

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        await self._turns.take(self._process)
        self._values[name] = value

    async def delete(self, name: str) -> None:
        await self._turns.take(self._process)
        self._values.pop(name, None)

    async def names(self, kind: str) -> AsyncIterator[str]:
        for name in [name for name in self._values if name[0] == kind]:
            yield name[2:]


def processes(
    number: int, clock: FakeClock, kind: type[DocumentStore] = DocumentStore
) -> tuple[list[DocumentStore], Turns, dict[str, bytes]]:
    """Stores of several processes on one shared dictionary."""
    values: dict[str, bytes] = {}
    turns = Turns()
    return [kind(SteppedDocuments(values, turns, process), CAPABILITIES, clock=clock) for process in range(number)], turns, values


async def _outcome(call: Coroutine[Any, Any, object]) -> object:
    try:
        return await call
    except (SessionConflictError, SessionGoneError) as error:
        return type(error)
