"""Lists the keys of a user or of an OP session in one document each, and revokes all of them with one write.

If two processes add a key at the same instant, one may be lost until that session is written or touched again. A revocation does
not depend on the list: it is a new generation, and sessions of an old generation are dead, listed or not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from session_core.stores.base import SessionIndex
from session_core.stores.document.backend import DocumentFile
from session_core.stores.document.format import Generation, KeyList, nonce
from session_core.stores.document.locks import NamedLocks
from session_core.stores.document.reader import index_names

__all__ = ("DocumentIndex", "index_name")

_GENERATION_MS: Final = 31 * 86_400_000
"""How long a revocation is remembered: longer than any session lives without being used."""


def index_name(index: SessionIndex) -> str:
    """Return the document name of an index value."""
    return next(name for name in index_names(index.user, index.op_session) if name is not None)


class DocumentIndex:
    """Lists of keys, by index value."""

    def __init__(self, file: DocumentFile, locks: NamedLocks) -> None:
        self._file = file
        self._locks = locks

    async def keys(self, name: str) -> dict[str, int]:
        """Return the listed keys, each with the time (Unix milliseconds) at which it was added."""
        found = await self._file.get(f"u:{name}", KeyList)
        return found.keys if isinstance(found, KeyList) else {}

    async def add(self, name: str | None, key: str, *, until: int, life: int) -> None:
        """List a key until `until` at least; nothing is written when it is listed already."""
        if name is None:
            return
        async with self._locks.hold(f"u:{name}"):
            found = await self._file.get(f"u:{name}", KeyList)
            listed = found if isinstance(found, KeyList) else KeyList(0, {})
            if key in listed.keys and listed.until >= until:
                return
            keys = {**listed.keys, key: listed.keys.get(key, self._file.clock.now())}
            # Kept for twice the requested time, so that not every touch rewrites the list.
            await self._file.put(f"u:{name}", KeyList(max(listed.until, until + life), keys))

    async def discard(self, name: str | None, keys: Collection[str]) -> None:
        """Remove keys from the list."""
        if name is None or not keys:
            return
        async with self._locks.hold(f"u:{name}"):
            found = await self._file.get(f"u:{name}", KeyList)
            if not isinstance(found, KeyList) or not found.keys.keys() & set(keys):
                return
            left = {key: added for key, added in found.keys.items() if key not in keys}
            if left:
                await self._file.put(f"u:{name}", KeyList(found.until, left))
            else:
                await self._file.delete(f"u:{name}")

    async def revoke(self, name: str, *, keep: str | None) -> None:
        """End every session of an index value but one, with one write."""
        until = self._file.clock.now() + _GENERATION_MS
        await self._file.put(f"g:{name}", Generation(until, nonce(), keep))
