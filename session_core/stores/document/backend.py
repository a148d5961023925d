"""A place that keeps small values by name and knows nothing of sessions: what a driver without compare-and-swap is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from session_core.stores.document.format import Corrupt, Document, decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from session_core.clock import Clock

__all__ = ("DocumentFile", "Documents")

T = TypeVar("T", bound=Document)

_SLACK_SECONDS: Final = 60
"""A value stays this much longer than it is good for: the clocks of the nodes and of the place may differ."""


class Documents(Protocol):
    """What a driver must do. A name is a kind, a colon, and one word of letters, digits, `-` and `_`, at most 100 characters.

    Every call is bounded in time and size, and raises `StoreUnavailableError` when the place does not answer as it should.
    """

    async def open(self) -> None:
        """Make what calls need; the place itself may still be out."""
        ...

    async def close(self) -> None:
        """Let go of it. May be opened again."""
        ...

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values, None for an absent one. What cannot be read as a value is `b""`."""
        ...

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        """Store a value, whatever was there; it may leave after so many seconds."""
        ...

    async def delete(self, name: str) -> None:
        """Remove a value; no error when there is none."""
        ...

    def names(self, kind: str) -> AsyncIterator[str]:
        """Iterate over the names of a kind, without the kind. Only for a driver that can."""
        ...


class DocumentFile:
    """Typed documents in such a place."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self.documents = documents
        self.clock = clock

    async def get(self, name: str, kind: type[T]) -> T | Corrupt | None:
        """Return one document."""
        return decode((await self.documents.get([name]))[0], kind)

    async def put(self, name: str, document: Document) -> None:
        """Store a document; it leaves by itself some time after its `until`, where the place can do that."""
        seconds = math.ceil((document.until - self.clock.now()) / 1000)
        await self.documents.put(name, encode(document), seconds=max(seconds, 0) + _SLACK_SECONDS)

    async def delete(self, name: str) -> None:
        """Remove a document."""
        await self.documents.delete(name)
