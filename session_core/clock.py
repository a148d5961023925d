"""Time as a parameter: the only place that asks the operating system what time it is."""

from __future__ import annotations

import time
from typing import Final, Protocol

__all__ = ("TOLERATED_SKEW_MS", "Clock", "SystemClock")

TOLERATED_SKEW_MS: Final = 300_000
"""By how much the clocks of an application's nodes may differ, in milliseconds: promises hold, lifetimes are off by as much."""


class Clock(Protocol):
    """Where the library gets the time from; tests hand in a `FakeClock`."""

    def now(self) -> int:
        """Unix time in milliseconds."""
        ...


class SystemClock:
    """The wall clock of this machine."""

    def now(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000
