"""What the library itself keeps in a session store beside the sessions; independent of stores.

A note is a record like a session's, under a key to which no cookie leads, and its bytes are those of no session.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final, TypeVar

import msgspec

from session_core.ids import TAG_CHARS

__all__ = ("NOTE_MARK", "encode_note", "is_note", "note_digest", "note_key", "read_note")

T = TypeVar("T")

NOTE_MARK: Final = b"\xc1note\x00"
"""The byte 0xC1 begins nothing in MessagePack: what begins with it is never a session."""


def note_digest(*parts: str) -> str:
    """Return a name of the form that session keys begin with.

    Parts are digests, numbers and fixed words; only the last may contain a space.
    """
    return urlsafe_b64encode(sha256(" ".join(parts).encode()).digest()).rstrip(b"=").decode()


def note_key(*parts: str) -> str:
    """Return the key of a note of which there are many; its parts as for `note_digest`. A cluster spreads them over all nodes."""
    digest = note_digest(*parts)
    return digest + digest[:TAG_CHARS]


def encode_note(value: object) -> bytes:
    """Return the bytes of a note."""
    return NOTE_MARK + msgspec.msgpack.encode(value)


def is_note(raw: bytes) -> bool:
    """Whether a store's bytes are a note and no session."""
    return raw.startswith(NOTE_MARK)


def read_note(raw: bytes, kind: type[T]) -> T | None:
    """Return what a note says; None for what is no note of this kind, or was written by another version."""
    if not is_note(raw):
        return None
    try:
        return msgspec.msgpack.decode(raw[len(NOTE_MARK) :], type=kind)
    except msgspec.MsgspecError:
        return None
