"""Removes expired documents for drivers without native expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from session_core.stores.document.format import (
    KINDS,
    Claim,
    Corrupt,
    Document,
    EndMark,
    Generation,
    KeyList,
    Record,
    Successor,
)
from session_core.stores.document.listing import Sweeper

if TYPE_CHECKING:
    from session_core.stores.document.backend import DocumentFile
    from session_core.stores.document.locks import NamedLocks

__all__ = ("DocumentSweeper",)

_TYPES: Final[dict[str, type[Document]]] = {
    "s": Record,
    "n": Successor,
    "c": Claim,
    "e": EndMark,
    "g": Generation,
    "u": KeyList,
}
_LATER_MS: Final = 3_600_000
"""When an unreadable document is read again; it is never removed, because it may be foreign."""


class DocumentSweeper(Sweeper):
    """Lists of keys go as well, uncounted."""

    def __init__(self, file: DocumentFile, locks: NamedLocks) -> None:
        super().__init__(file.documents, file.clock, kinds="".join(KINDS), uncounted="u")
        self._file = file
        self._locks = locks

    async def _remove_if_over(self, name: str) -> int | None:
        async with self._locks.hold(name):
            found = await self._file.get(name, _TYPES[name[0]])
            now = self._clock.now()
            if found is None or isinstance(found, Corrupt):
                return now + _LATER_MS
            if found.until > now:
                return found.until
            await self._file.delete(name)
            return None
