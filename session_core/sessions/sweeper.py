"""Removes expired records periodically, in one of the processes that share the store. Independent of applications.

Time is divided into slots of `interval` seconds. In each slot every process tries to claim the slot's name, and the winner
sweeps: a lease without renewal or release. If it dies, the winner of the next slot continues. With different clocks a slot begins
at different times, but is still won once.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

import structlog

from session_core.errors import StoreUnavailableError
from session_core.sessions.manager import SessionManager

__all__ = ("Sweeper",)

_JITTER: Final = 0.1
"""The random part of the interval, so that processes do not all claim at the same instant."""
_STOP_SECONDS: Final = 0.25
"""Seconds for a cancelled sweep to end: a driver may first call a frozen server."""
_KEPT_SLOTS: Final = 2
"""How long a claim is kept: a process whose clock is behind must still find it."""
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")


class Sweeper:
    """Sweeps in the background; `interval` is in seconds."""

    def __init__(self, sessions: SessionManager, *, interval: float) -> None:
        self._sessions = sessions
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first sweep is in the next slot."""
        self._task = asyncio.create_task(self._sweep_forever(), name="session-sweeper")

    async def stop(self) -> None:
        """Stop, also during a sweep and while the store does not answer. Safe without `start`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=_STOP_SECONDS)

    async def sweep_once(self) -> int | None:
        """Sweep unless another process has claimed this slot (then None); return how many records were removed."""
        slot_ms = max(round(self._interval * 1000), 1)
        slot = self._sessions.clock.now() // slot_ms
        # The name includes the interval: after a change of it, slots of the old one do not count.
        won = await self._sessions.store.claim(f"sweep-{slot_ms}-{slot}", (slot + _KEPT_SLOTS) * slot_ms)
        return await self._sessions.prune() if won else None

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self._until_next_slot())
            try:
                await self.sweep_once()
            except StoreUnavailableError:
                continue  # the outage was logged as an event; the next slot tries again
            except Exception as error:  # noqa: BLE001 - one failed round must not end sweeping
                _log.error("sweep failed", error=type(error).__name__)

    def _until_next_slot(self) -> float:
        left = self._interval - self._sessions.clock.now() / 1000 % self._interval
        return left + random.uniform(0, self._interval * _JITTER)  # noqa: S311 - no secret
