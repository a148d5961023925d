"""Keeps SQLite's write-ahead log short by checkpoints, so that the next commit starts a new log."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from math import inf
from pathlib import Path
from threading import Thread
from typing import Final

from session_core.stores.sqlite.connection import WAL_BYTES

__all__ = ("Checkpoints",)

_UNDER_LOCK: Final = 4 * WAL_BYTES
"""Of log, at most, copied while no process can write: some milliseconds."""


class Checkpoints:
    """Checkpoints through a separate connection.

    A commit starts the log anew only when all of it has been copied. With commits all the time it never would be: so the
    rest is copied under the write lock. That also keeps clear of a bug of SQLite before 3.51.3, whose checkpoints may damage the
    database when another process starts the log anew meanwhile.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._log = f"{path}-wal"
        self._connection = connection
        self._due_at: float = WAL_BYTES
        self._copied = 0
        self._beside: Thread | None = None

    def are_due(self) -> bool:
        """Whether the log has grown long."""
        return self._length() > self._due_at

    def run(self, writer: sqlite3.Connection) -> None:
        """Copy the log while `writer` holds the write lock, or a very long one by a thread beside the writers first."""
        if self._length() - self._copied > _UNDER_LOCK:
            # A long-running reader of another program has blocked checkpoints.
            self._due_at = inf
            self._beside = Thread(target=self._copy_beside, name="session-checkpoint", daemon=True)
            self._beside.start()
            return
        with suppress(sqlite3.Error):  # another process is writing: after the next group
            writer.execute("BEGIN IMMEDIATE")
            try:
                if self._copy():
                    self._due_at, self._copied = WAL_BYTES, 0
            finally:
                writer.execute("ROLLBACK")

    def close(self) -> None:
        """Return when none is under way; close the connection."""
        if self._beside is not None:
            self._beside.join()
        self._connection.close()

    def _copy_beside(self) -> None:
        try:
            if self._copy():
                self._due_at = 0
        except sqlite3.Error:
            self._due_at = self._length() + WAL_BYTES

    def _copy(self) -> bool:
        """Copy as much as readers allow; return whether all was copied."""
        length = self._length()
        busy, frames, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or copied < frames:
            # A checkpoint takes longer with a longer log, so do not repeat it after each commit.
            self._due_at = length + WAL_BYTES
            self._copied = 0 if busy else length * copied // frames
            return False
        self._copied = length
        return True

    def _length(self) -> int:
        try:
            return os.stat(self._log).st_size  # noqa: PTH116 - never opened: closing it would drop SQLite's locks
        except FileNotFoundError:
            return 0
