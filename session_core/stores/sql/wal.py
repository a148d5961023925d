"""Copies SQLite's write-ahead log into its database beside the writers, instead of in the middle of one's commit."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("WAL_BOUND_PAGES", "Checkpoints")

WAL_BOUND_PAGES: Final = 10_000
"""Where SQLite does it by itself after all: when nobody else came to it."""
_PAGES: Final = 1000
"""SQLite's own default for doing it."""
_PAGES_OF_A_ROW: Final = 4
"""The table and its indexes, about."""


class Checkpoints:
    """Begins a checkpoint now and then.

    By itself SQLite checkpoints within the commit that passes a thousand pages: that one waits for two syncs of the disk, and
    so does whoever is behind it in the queue.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._written = 0
        self._task: asyncio.Task[None] | None = None

    def note(self, rows: int) -> None:
        """Count rows that were written; begin a checkpoint when it is time for one."""
        self._written += rows * _PAGES_OF_A_ROW
        if self._written >= _PAGES and (self._task is None or self._task.done()):
            self._written = 0
            self._task = asyncio.create_task(self._checkpoint())

    async def stop(self) -> None:
        """Return when none is under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _checkpoint(self) -> None:
        # Passive: waits for nobody, and nobody for it. What could not be copied is copied the next time.
        with suppress(SQLAlchemyError, OSError):
            async with self._engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
