"""Splits documents that are too large for an engine into pieces. Pieces are written once and never changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from secrets import token_urlsafe
from typing import Final, NamedTuple

import msgspec

from session_core.stores.conditional.documents import ConditionalDocuments, Versioned

__all__ = ("InPieces",)

_MAGIC: Final = b"\x89sc1/"
_ATTEMPTS: Final = 5


class _Pieces(msgspec.Struct, frozen=True, array_like=True):
    name: str
    number: int

    def names(self) -> list[str]:
        return [f"p:{self.name}-{place}" for place in range(self.number)]


class _Version(NamedTuple):
    version: object
    pieces: _Pieces | None


class InPieces:
    """Documents of any size in `documents`, each of which has at most `most` bytes."""

    def __init__(self, documents: ConditionalDocuments, most: int) -> None:
        self._documents = documents
        self._most = most

    async def open(self) -> None:
        """See `ConditionalDocuments.open`."""
        await self._documents.open()

    async def close(self) -> None:
        """See `ConditionalDocuments.close`."""
        await self._documents.close()

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        """See `ConditionalDocuments.get`."""
        return [await self._whole(name, stored) for name, stored in zip(names, await self._documents.get(names), strict=True)]

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        """See `ConditionalDocuments.put`."""
        inner, before = version if isinstance(version, _Version) else (None, None)
        pieces: _Pieces | None = None
        if len(value) > self._most:
            starts = range(0, len(value), self._most)
            pieces = _Pieces(token_urlsafe(12), len(starts))
            for piece, start in zip(pieces.names(), starts, strict=True):
                await self._documents.put(piece, value[start : start + self._most], version=None, seconds=seconds)
            value = _MAGIC + msgspec.msgpack.encode(pieces)
        made = await self._documents.put(name, value, version=inner, seconds=seconds)
        await self._remove(before if made else pieces)
        return made

    async def delete(self, name: str, *, version: object) -> bool:
        """See `ConditionalDocuments.delete`."""
        inner, before = version if isinstance(version, _Version) else (version, None)
        made = await self._documents.delete(name, version=inner)
        if made:
            await self._remove(before)
        return made

    def names(self, kind: str) -> AsyncIterator[str]:
        """See `ConditionalDocuments.names`."""
        return self._documents.names(kind)

    async def _whole(self, name: str, stored: Versioned | None) -> Versioned | None:
        for _ in range(_ATTEMPTS):
            if stored is None or not stored.value.startswith(_MAGIC):
                return stored and Versioned(stored.value, _Version(stored.version, None))
            pieces = msgspec.msgpack.decode(stored.value[len(_MAGIC) :], type=_Pieces)
            values = [piece.value for piece in await self._documents.get(pieces.names()) if piece is not None]
            if len(values) == pieces.number:
                return Versioned(b"".join(values), _Version(stored.version, pieces))
            before = stored
            (stored,) = await self._documents.get([name])  # it was written over meanwhile
            if stored is not None and stored.version == before.version:
                return Versioned(b"", _Version(stored.version, None))  # its pieces are lost
        msg = "a document was overwritten repeatedly while it was read"
        raise TimeoutError(msg)

    async def _remove(self, pieces: _Pieces | None) -> None:
        """Remove pieces that no document names any more."""
        if pieces is None:
            return
        names = pieces.names()
        for name, stored in zip(names, await self._documents.get(names), strict=True):
            if stored is not None:
                await self._documents.delete(name, version=stored.version)
