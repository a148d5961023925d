"""Removes what is no longer good, where the engine does not do that itself; reads each document about once in its life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from session_core.stores.conditional.format import Held, decode

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.stores.conditional.documents import ConditionalDocuments

__all__ = ("ConditionalSweeper",)

_KINDS: Final = "scuot"
_COUNTED: Final = "sc"
_LATER_MS: Final = 3_600_000
"""When what cannot be read is looked at again: it is not ours to remove."""


class ConditionalSweeper:
    """Sweeps in batches; several may be at work."""

    def __init__(self, documents: ConditionalDocuments, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._due: dict[str, int] = {}
        """When a document is next worth reading (Unix milliseconds): life only moves forward."""

    async def sweep(self, limit: int) -> int:
        """Remove up to `limit` documents that have ended; return how many. Lists of keys and decisions go as well, uncounted."""
        removed = 0
        for kind in _KINDS:
            seen: set[str] = set()
            async for rest in self._documents.names(kind):
                name = f"{kind}:{rest}"
                seen.add(name)
                if self._due.get(name, 0) > self._clock.now() or not await self._remove_if_over(name):
                    continue
                removed += kind in _COUNTED
                if removed >= limit:
                    return removed
            for name in [name for name in self._due if name[0] == kind and name not in seen]:
                del self._due[name]
        return removed

    async def _remove_if_over(self, name: str) -> bool:
        (stored,) = await self._documents.get([name])
        if stored is None:
            return False
        held = decode(stored.value, Held)
        now = self._clock.now()
        until = now + _LATER_MS
        if isinstance(held, Held):
            until = max(held.until, held.intent.until if held.intent is not None else 0)
        if until <= now:
            return await self._documents.delete(name, version=stored.version)
        self._due[name] = until
        return False
