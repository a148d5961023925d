"""Removes what is no longer good, where the engine does not do that itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from session_core.stores.conditional.format import Held, decode
from session_core.stores.document.listing import Sweeper

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.stores.conditional.documents import ConditionalDocuments

__all__ = ("ConditionalSweeper",)

_LATER_MS: Final = 3_600_000
"""When what cannot be read is looked at again: it is not ours to remove."""


class ConditionalSweeper(Sweeper):
    """Lists of keys and decisions go as well, uncounted."""

    def __init__(self, documents: ConditionalDocuments, clock: Clock) -> None:
        super().__init__(documents, clock, kinds="scuot", uncounted="uot")
        self._documents = documents

    async def _remove_if_over(self, name: str) -> int | None:
        (stored,) = await self._documents.get([name])
        now = self._clock.now()
        if stored is None:
            return now
        held = decode(stored.value, Held)
        if not isinstance(held, Held):
            return now + _LATER_MS
        until = max(held.until, held.intent.until if held.intent is not None else 0)
        if until > now:
            return until
        return None if await self._documents.delete(name, version=stored.version) else now
