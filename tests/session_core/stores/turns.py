"""Runs calls of several processes step by step in random order; a test may kill one of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from session_core.errors import StoreError
from session_core.stores.base import Entry, SessionIndex, SessionStore
from session_core.testing import FakeClock

V = TypeVar("V")

MINUTE = 60_000
USER, OP_SESSION = SessionIndex(user="u"), SessionIndex(op_session="o")
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


class SteppedView(Generic[V]):
    """The view of one process on a shared dictionary: each name is read or written in a separate step."""

    def __init__(self, values: dict[str, V], turns: Turns, process: int) -> None:
        self._values = values
        self._turns = turns
        self._process = process

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, names: Sequence[str]) -> list[V | None]:
        found = []
        for name in names:
            await self._turns.take(self._process)
            found.append(self._values.get(name))
        return found

    async def names(self, kind: str) -> AsyncIterator[str]:
        for name in [name for name in self._values if name[0] == kind]:
            yield name[2:]


def entry_for(clock: FakeClock, data: bytes = b"data", user: str | None = "u", rank: int = 0) -> Entry:
    """A session of an hour."""
    return Entry(data, clock.now() + 60 * MINUTE, user, "o", rank)


async def write_meets_end(
    first: SessionStore, second: SessionStore, turns: Turns, clock: FakeClock, seed: int, write: str, end: str, *, most: int
) -> list[object]:
    """Write the session `old` and end it at the same time; return both outcomes. In every third order the writer is killed.

    It is killed before its step number `most`.
    """
    await first.create("old", entry_for(clock))
    writes = {
        "replace": lambda: first.replace("old", entry_for(clock, b"late"), version=1),
        "touch": lambda: first.touch("old", clock.now() + 180 * MINUTE),
        "rotate": lambda: first.rotate("old", "new", entry_for(clock), version=1, successor_until=clock.now() + MINUTE),
    }
    ends = {
        "delete": lambda: second.delete("old"),
        "delete_by_user": lambda: second.delete_by(USER),
        "delete_by_op_session": lambda: second.delete_by(OP_SESSION),
    }
    chance = random.Random(seed)
    killed = chance.randrange(most) if seed % 3 == 0 else None
    return await turns.play([writes[write](), ends[end]()], chance, killed=killed)
