"""Slows down password guessing: counts failures per key in a sliding window."""

from typing import Final

from auth_demo.op.state.expiring import Clock, ExpiringMap

__all__ = ("FailureLimit",)

_CAPACITY: Final = 10_000


class FailureLimit:
    """At most `limit` failures per key in any `window` seconds (ASVS 6.3.1)."""

    def __init__(self, clock: Clock, *, limit: int, window: float = 60.0) -> None:
        self._clock = clock
        self._limit = limit
        self._window = window
        self._failures = ExpiringMap[list[float]](clock, lifetime=window, capacity=_CAPACITY)

    def retry_after(self, key: str) -> int:
        """Return how many seconds `key` has to wait, 0 when it may try now."""
        recent = self._recent(key)
        if len(recent) < self._limit:
            return 0
        return max(1, int(recent[-self._limit] + self._window - self._clock()) + 1)

    def record_failure(self, key: str) -> None:
        """Count one failed attempt of `key`."""
        self._failures.put(key, [*self._recent(key)[-self._limit :], self._clock()])

    def forget(self, key: str) -> None:
        """Start `key` afresh after a success."""
        self._failures.pop(key)

    def _recent(self, key: str) -> list[float]:
        oldest = self._clock() - self._window
        return [moment for moment in self._failures.get(key) or [] if moment > oldest]
