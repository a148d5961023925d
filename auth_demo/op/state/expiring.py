"""A bounded in-memory map whose entries expire; the only place that decides what memory may hold."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeAlias, TypeVar

__all__ = ("Clock", "ExpiringMap")

Clock: TypeAlias = Callable[[], float]
"""Returns the time as seconds since the Unix epoch."""

V = TypeVar("V")


class ExpiringMap(Generic[V]):
    """Maps strings to values that vanish after `lifetime` seconds; beyond `capacity` the oldest goes first.

    One lifetime for all entries keeps insertion order equal to expiry order, so that sweeping costs only what
    it removes. The capacity bounds what a flood of requests can make the process keep.
    """

    def __init__(self, clock: Clock, *, lifetime: float, capacity: int) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._capacity = capacity
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()

    def put(self, key: str, value: V) -> None:
        """Store `value` under `key` for the full lifetime, replacing what was there."""
        self._sweep()
        self._entries.pop(key, None)
        self._entries[key] = (self._clock() + self._lifetime, value)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def get(self, key: str) -> V | None:
        """Return the live value of `key`, or ``None``."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def pop(self, key: str) -> V | None:
        """Remove `key` and return the value if it was still live."""
        value = self.get(key)
        self._entries.pop(key, None)
        return value

    def values(self) -> Iterator[V]:
        """Iterate over the live values, oldest first."""
        self._sweep()
        return iter([value for _, value in self._entries.values()])

    def __len__(self) -> int:
        """Count the live entries."""
        self._sweep()
        return len(self._entries)

    def _sweep(self) -> None:
        now = self._clock()
        while self._entries:
            key, (expires_at, _) = next(iter(self._entries.items()))
            if expires_at > now:
                return
            del self._entries[key]
