"""Files and directories that survive a power cut whole or not at all; knows neither sessions nor locks."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Disk", "file_name")

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,200}\Z", re.ASCII)
_ABANDONED_AFTER: Final = 3600


def file_name(value: str) -> str:
    """Return a file name for any value: no separator, no dot, no way out of the directory."""
    return value if _PLAIN.match(value) else "~" + sha256(value.encode()).hexdigest()


class Disk:
    """One private directory and its parts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sessions = root / "sessions"
        self.users = root / "users"
        self.op_sessions = root / "op_sessions"
        self.claims = root / "claims"
        self.journal = root / "journal"
        self.locks = root / "locks"
        self._unfinished = root / "unfinished"

    def prepare(self) -> None:
        """Create what is missing, for the owner's eyes only. A directory that exists keeps its mode."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (
            self.sessions, self.users, self.op_sessions, self.claims, self.journal, self.locks, self._unfinished
        ):  # fmt: skip
            part.mkdir(mode=0o700, exist_ok=True)
        self.sync(self.root)

    def write(self, path: Path, content: bytes) -> None:
        """Put a whole file in place in one instant. Durable once its directory is synced."""
        unfinished = self._unfinished / secrets.token_hex(16)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def read(self, path: Path) -> bytes | None:
        """Return the content of a file, or None when there is none."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def mark(self, path: Path) -> None:
        """Put an empty file in place, durably, in a directory that comes and goes."""
        while True:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except FileNotFoundError:
                continue  # the last other file of the directory left, and the directory with it
            self.sync(path.parent)
            self.sync(path.parent.parent)
            return

    def unmark(self, path: Path) -> None:
        """Remove such a file, and its directory with the last of them."""
        path.unlink(missing_ok=True)
        self.drop_if_empty(path.parent)

    def drop_if_empty(self, directory: Path) -> None:
        """Remove a directory with nothing in it."""
        with suppress(OSError):
            directory.rmdir()

    def names(self, directory: Path) -> Iterator[str]:
        """Give the names in a directory, none when it is not there."""
        try:
            yield from os.listdir(directory)  # noqa: PTH208 - paths are not needed
        except FileNotFoundError:
            return

    def sync(self, directory: Path) -> None:
        """Make what was renamed or removed in a directory survive a power cut."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def probe(self) -> None:
        """Raise `OSError` when nothing can be written."""
        probe = self._unfinished / secrets.token_hex(16)
        self.write(probe, b"probe")
        probe.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what killed processes left unfinished. By the machine's own time: that is what files carry."""
        before = time.time() - _ABANDONED_AFTER
        for name in self.names(self._unfinished):
            path = self._unfinished / name
            try:
                if path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
