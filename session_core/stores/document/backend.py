"""The interface of a key-value driver without compare-and-swap. Independent of sessions."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol, TypeVar

from session_core.clock import Clock
from session_core.stores.document.format import Corrupt, Document, decode, encode

__all__ = ("DocumentFile", "Documents")

T = TypeVar("T", bound=Document)

_SLACK_SECONDS: Final = 60
"""Extra time for which a value is kept, because the clocks of the nodes and of the service may differ."""


_READS: Final = 4
_PAUSE_SECONDS: Final = 0.01
"""Between two reads of a value that reads as empty."""


class Documents(Protocol):
    """The operations of a driver.

    A name is a kind, a colon, and one word of letters, digits, `-` and `_`, at most 100 characters.
    Every call is bounded in time and size, and raises `StoreUnavailableError` when the service fails.
    """

    async def open(self) -> None:
        """Prepare for calls; the service itself may still be down."""
        ...

    async def close(self) -> None:
        """Release resources. May be opened again."""
        ...

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values, None for an absent one, `b""` for an unreadable one."""
        ...

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        """Store a value unconditionally; it may expire after so many seconds."""
        ...

    async def delete(self, name: str) -> None:
        """Remove a value; no error when there is none."""
        ...

    def names(self, kind: str) -> AsyncIterator[str]:
        """Iterate over the names of a kind, without the kind. Only for drivers that can list."""
        ...


class DocumentFile:
    """Typed documents in a driver."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self.documents = documents
        self.clock = clock

    async def get(self, name: str, kind: type[T]) -> T | Corrupt | None:
        """Return one document."""
        return decode((await self.read([name]))[0], kind)

    async def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values as `Documents.get` does; an empty one only after it was read several times.

        A service that keeps its values in files serves one as empty while it is written.
        """
        values = await self.documents.get(names)
        for _ in range(_READS - 1):
            empty = [number for number, value in enumerate(values) if value == b""]
            if not empty:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            again = await self.documents.get([names[number] for number in empty])
            for number, value in zip(empty, again, strict=True):
                values[number] = value
        return values

    async def put(self, name: str, document: Document) -> None:
        """Store a document; it expires some time after its `until`, if the driver supports that."""
        seconds = math.ceil((document.until - self.clock.now()) / 1000)
        await self.documents.put(name, encode(document), seconds=max(seconds, 0) + _SLACK_SECONDS)

    async def delete(self, name: str) -> None:
        """Remove a document."""
        await self.documents.delete(name)
