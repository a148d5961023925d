"""Removes expired records now and then, in one process of all that share the store. Independent of applications.

Time is cut into slots of `interval` seconds by the wall clock. In each slot every process tries to claim the slot's name, and the
winner sweeps: a lease that needs no renewal and no release. A process that dies while it sweeps leaves the rest to the
winner of the next slot. Where clocks differ, a slot begins at different times and is still won once.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

import structlog

from session_core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from session_core.sessions.manager import SessionManager

__all__ = ("Sweeper",)

_JITTER: Final = 0.1
"""Of the interval: the processes of a deployment do not all claim at the same instant."""
_STOP_SECONDS: Final = 0.25
"""For a sweep to notice that it is cancelled: a driver may first ask a server that is frozen."""
_KEPT_SLOTS: Final = 2
"""For how long a claim is kept: a process whose clock is behind must still find it."""
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")


class Sweeper:
    """Sweeps in the background; `interval` is in seconds."""

    def __init__(self, sessions: SessionManager, *, interval: float) -> None:
        self._sessions = sessions
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first sweep is in the next slot."""
        self._task = asyncio.create_task(self._sweep_for_ever(), name="session-sweeper")

    async def stop(self) -> None:
        """Stop, also in the middle of a sweep, on a store that does not answer as well. Safe without `start`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=_STOP_SECONDS)

    async def sweep_once(self) -> int | None:
        """Sweep if no process does in this slot; return how many records were removed, or None when it is another's turn."""
        slot_ms = max(round(self._interval * 1000), 1)
        slot = self._sessions.clock.now() // slot_ms
        # Named by the length, too: a deployment that changes it must not lose a turn to the one before.
        won = await self._sessions.store.claim(f"sweep-{slot_ms}-{slot}", (slot + _KEPT_SLOTS) * slot_ms)
        return await self._sessions.prune() if won else None

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._until_next_slot())
            try:
                await self.sweep_once()
            except StoreUnavailableError:
                continue  # an event has told the log; the next round tries again
            except Exception as error:  # noqa: BLE001 - one bad round must not end the sweeping for ever
                _log.error("sweep failed", error=type(error).__name__)

    def _until_next_slot(self) -> float:
        left = self._interval - self._sessions.clock.now() / 1000 % self._interval
        return left + random.uniform(0, self._interval * _JITTER)  # noqa: S311 - no secret
