"""Measures how long a call waited, without the time in which a busy machine suspended this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

_TICK: Final = 0.01


class Stopwatch:
    """Seconds since the start, minus the delay of the event loop, during which other programs had the processor."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._late = 0.0

    @property
    def seconds(self) -> float:
        return monotonic() - self._began - self._late

    async def tick(self) -> None:
        while True:
            before = monotonic()
            await asyncio.sleep(_TICK)
            self._late += max(0.0, monotonic() - before - 2 * _TICK)


@asynccontextmanager
async def stopwatch() -> AsyncIterator[Stopwatch]:
    """Start a stopwatch. It hides the time of a call that blocks the event loop; measure such a call differently."""
    watch = Stopwatch()
    ticking = asyncio.create_task(watch.tick())
    try:
        yield watch
    finally:
        ticking.cancel()
