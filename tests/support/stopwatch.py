"""Measures what a call waited for, without the time in which a busy machine let this process stand still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

_TICK: Final = 0.01


class Stopwatch:
    """Seconds since it was started, less those by which the event loop ran late: other programs had the processor then."""

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
    """Start a stopwatch. A call that blocks the event loop hides its own time: measure such a call in another way."""
    watch = Stopwatch()
    ticking = asyncio.create_task(watch.tick())
    try:
        yield watch
    finally:
        ticking.cancel()
