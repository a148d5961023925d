"""A small cache of decoded values. The caller must compare their source with what the store has just returned."""

from __future__ import annotations

from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ("Recent",)

T = TypeVar("T")


class Recent(Generic[T]):
    """At most `limit` values by key; the oldest is dropped first.

    No decision is based on the cache alone: the caller checks on every use that a value is still current. A value made of more
    than `max_bytes` is not kept: clients must not control how much memory a process uses.
    """

    __slots__ = ("_limit", "_max_bytes", "_values", "get")

    def __init__(self, *, limit: int = 1024, max_bytes: int = 2048) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._values: dict[str, T] = {}
        self.get = self._values.get
        """Return the value of a key, or None."""

    def put(self, key: str, value: T, size: int) -> None:
        """Remember a value that was made of `size` bytes."""
        values = self._values
        if size > self._max_bytes:
            values.pop(key, None)
            return
        values[key] = value
        if len(values) > self._limit:
            with suppress(RuntimeError, StopIteration):  # another thread with its own event loop changed it
                values.pop(next(iter(values)), None)
