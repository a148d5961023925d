"""Ctrl-C and SIGTERM as a flag: the only signal handling of the demo.

The default is an exception at any point of the program. Raised inside a finalizer or a callback, Python prints and drops it, and
the demo would go on.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ("StopRequestedError", "StopSignal", "handling_signals")


class StopRequestedError(Exception):
    """Raised by `StopSignal.check`: the demo was asked to stop."""


class StopSignal:
    """Whether the demo was asked to stop. For code outside an event loop there is `check`, inside of it `wait`."""

    def __init__(self) -> None:
        self._requested = False
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Raise `StopRequestedError` when the demo was asked to stop."""
        if self._requested:
            raise StopRequestedError

    async def wait(self) -> None:
        """Return when the demo was asked to stop."""
        self._loop = asyncio.get_running_loop()
        if not self._requested:
            await self._event.wait()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the request; a signal handler."""
        del number, frame
        self._requested = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)


@contextmanager
def handling_signals() -> Iterator[StopSignal]:
    """Handle the signals inside the block; only for the main thread."""
    stop = StopSignal()
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
