"""A clock that only tests advance."""

from __future__ import annotations

from typing import Final

__all__ = ("FakeClock",)

_START: Final = 4_102_444_800_000
"""The year 2100: still in the future for a store whose native expiry follows the real time."""


class FakeClock:
    """A `Clock` for tests."""

    def __init__(self, start_ms: int = _START) -> None:
        self._now = start_ms

    def now(self) -> int:
        """Unix time in milliseconds."""
        return self._now

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> int:
        """Move the time forward (or back, with negative numbers); return the new now."""
        self._now += round(1000 * (seconds + 60 * (minutes + 60 * (hours + 24 * days))))
        return self._now
