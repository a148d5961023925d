"""The two indexes of the file store: an empty file per session, in a directory per user and per OP session.

A mark comes before its record and goes after it. One too many is noticed when its record is looked at; one too few would hide a
session from its revocation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from session_core.stores.file.disk import file_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from session_core.stores.base import SessionIndex
    from session_core.stores.file.disk import Disk
    from session_core.stores.file.format import FileRecord

__all__ = ("Marks", "is_key")

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,200}\Z", re.ASCII)


def is_key(name: str) -> bool:
    """Whether a name has the form of a session key: no separator, no dot, no way out of the directory."""
    return _KEY.match(name) is not None


class Marks:
    """Which sessions belong to whom, as far as it has been written down."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def of(self, record: FileRecord | None) -> set[Path]:
        """Return the marks that a record must have."""
        if record is None:
            return set()
        pairs = ((self._disk.users, record.user), (self._disk.op_sessions, record.op_session))
        return {directory / file_name(value) / record.key for directory, value in pairs if value is not None}

    def at(self, index: SessionIndex, key: str) -> Path:
        """Return the mark of a key in an index."""
        return self._directory(index) / key

    def keys(self, index: SessionIndex) -> Iterator[str]:
        """Give the keys that are marked in an index, rightly or not."""
        return filter(is_key, self._disk.names(self._directory(index)))

    def all(self) -> Iterator[Path]:
        """Give every mark; empty directories, which killed processes leave, are removed on the way."""
        for indexes in (self._disk.users, self._disk.op_sessions):
            for directory in self._disk.names(indexes):
                for key in filter(is_key, self._disk.names(indexes / directory)):
                    yield indexes / directory / key
                self._disk.drop_if_empty(indexes / directory)

    def _directory(self, index: SessionIndex) -> Path:
        if index.user is not None:
            return self._disk.users / file_name(index.user)
        return self._disk.op_sessions / file_name(index.op_session or "")
