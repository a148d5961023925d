"""Time as a parameter: the only module that reads the system clock."""

from __future__ import annotations

import time
from typing import Final, Protocol

__all__ = ("TOLERATED_SKEW_MS", "Clock", "SystemClock")

TOLERATED_SKEW_MS: Final = 300_000
"""Tolerated clock difference between nodes, in milliseconds: promises hold, lifetimes are off by up to this much."""


class Clock(Protocol):
    """The source of time; tests pass a `FakeClock`."""

    def now(self) -> int:
        """Unix time in milliseconds."""
        ...


class SystemClock:
    """The wall clock of this machine."""

    def now(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000
