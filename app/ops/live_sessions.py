"""Counts the live sessions for the metrics, in one of the processes that share the store."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Final

from session_core.errors import SessionCoreError

if TYPE_CHECKING:
    from app.ops.metrics import Metrics
    from session_core import SessionManager

__all__ = ("count_sessions",)

_REST: Final = 50
"""Counting reads every session, so it uses at most a fiftieth of the time."""


async def count_sessions(metrics: Metrics, sessions: SessionManager, interval: int) -> None:
    """Count every `interval` seconds until cancelled; 0 means never. After an outage the next count tries again."""
    pause = float(interval)
    while interval and sessions.store.capabilities.listable:
        await asyncio.sleep(pause)
        with suppress(SessionCoreError):
            if await sessions.claim("count-sessions", seconds=max(1, round(pause) - 1)):
                began = perf_counter()
                metrics.counted(await sessions.stats())
                pause = max(interval, _REST * (perf_counter() - began))
