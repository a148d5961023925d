"""Locks by name, for the tasks of one process only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ("NamedLocks",)


class NamedLocks:
    """One lock for each name that is held or waited for."""

    def __init__(self) -> None:
        # By event loop as well: a lock belongs to one, and an application may be restarted in another.
        self._locks: dict[tuple[asyncio.AbstractEventLoop, str], tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of a name."""
        address = asyncio.get_running_loop(), name
        lock, users = self._locks.setdefault(address, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._locks[address]
