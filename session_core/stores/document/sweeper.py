"""Removes expired documents for drivers without native expiry; reads each document about once in its life."""

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


class DocumentSweeper:
    """Sweeps in batches; several processes may sweep at once."""

    def __init__(self, file: DocumentFile, locks: NamedLocks) -> None:
        self._file = file
        self._locks = locks
        self._due: dict[str, int] = {}
        """When a document must be read next (Unix milliseconds): expiries only move forward."""

    async def sweep(self, limit: int) -> int:
        """Remove up to `limit` documents that have ended; return how many. Lists of keys go as well, uncounted."""
        removed = 0
        for kind in KINDS:
            seen: set[str] = set()
            async for rest in self._file.documents.names(kind):
                name = f"{kind}:{rest}"
                seen.add(name)
                if self._due.get(name, 0) > self._file.clock.now() or not await self._remove_if_over(kind, name):
                    continue
                removed += kind != "u"
                if removed >= limit:
                    return removed
            for name in [name for name in self._due if name[0] == kind and name not in seen]:
                del self._due[name]
        return removed

    async def _remove_if_over(self, kind: str, name: str) -> bool:
        async with self._locks.hold(name):
            found = await self._file.get(name, _TYPES[kind])
            now = self._file.clock.now()
            if found is not None and not isinstance(found, Corrupt) and found.until <= now:
                await self._file.delete(name)
                self._due.pop(name, None)
                return True
            self._due[name] = found.until if found is not None and not isinstance(found, Corrupt) else now + _LATER_MS
            return False
