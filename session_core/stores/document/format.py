"""Names and content of the documents of a store without compare-and-swap. Independent of stores.

Each document is named by its kind and one more word. Every one begins with the same bytes, so that what other software put
there (a proxy's error page, another program's value) is recognised as foreign.

    s:key    the session's record                  e:key    the mark that it has ended, and what it was rotated to
    n:key    what it is being rotated to           c:name   a claim
    u:value  the keys of an index value            g:value  its generation: what is of another one has been revoked
"""

from __future__ import annotations

import secrets
from typing import Final, TypeVar

import msgspec

__all__ = (
    "KINDS",
    "Claim",
    "Corrupt",
    "Document",
    "EndMark",
    "Generation",
    "KeyList",
    "Record",
    "Successor",
    "decode",
    "encode",
    "nonce",
)

_MAGIC: Final = b"\x89sc1"


class Document(msgspec.Struct, frozen=True, array_like=True):
    """The base of all documents: `until` is when it may be removed (Unix milliseconds)."""

    until: int


class Record(Document, frozen=True, array_like=True):
    """One session; `until` is its expiry."""

    version: int
    data: bytes
    user: str | None
    op_session: str | None
    rank: int
    generations: tuple[int, int]
    """Of the user and of the OP session, when this was written for them; 0 where there is none."""
    life: int
    """The longest time (milliseconds) that a write ever gave it: no write in flight can give it more."""
    nonce: int
    """Random per write, to check that a read returns this write."""
    pending: str | None = None
    """The key this was rotated from, until that rotation is known to be complete. Lives only if the old key's mark says so."""


class EndMark(Document, frozen=True, array_like=True):
    """The session has ended; `to` is the key it was rotated to."""

    to: str | None = None


class Successor(Document, frozen=True, array_like=True):
    """Where a rotation leads, for `delete`, as long as it is remembered."""

    to: str


class Claim(Document, frozen=True, array_like=True):
    """A single-use claim, until its expiry."""

    nonce: int


class KeyList(Document, frozen=True, array_like=True):
    """The keys of an index value, with the time (Unix milliseconds) at which each was added."""

    keys: dict[str, int]


class Generation(Document, frozen=True, array_like=True):
    """Sessions of another generation of this index value were revoked, except `keep`."""

    number: int
    keep: str | None = None


KINDS: Final[dict[str, type[Document]]] = {"s": Record, "e": EndMark, "n": Successor, "c": Claim, "u": KeyList, "g": Generation}


class Corrupt:
    """A foreign or damaged value."""

    __slots__ = ()


T = TypeVar("T", bound=Document)

_encoder: Final = msgspec.msgpack.Encoder()


def encode(document: Document) -> bytes:
    """Return the bytes of a document."""
    return _MAGIC + _encoder.encode(document)


def decode(raw: bytes | None, kind: type[T]) -> T | Corrupt | None:
    """Return the document, None for an absent one, or `Corrupt`. Never raises."""
    if raw is None:
        return None
    if not raw.startswith(_MAGIC):
        return Corrupt()
    try:
        return msgspec.msgpack.decode(raw[len(_MAGIC) :], type=kind)
    except Exception:  # noqa: BLE001 - a poisoned value may raise anything: wrong text, too deep, too large
        return Corrupt()


def nonce() -> int:
    """Return a random number, unique to a write."""
    return secrets.randbits(62) + 1
