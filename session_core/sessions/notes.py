"""Notes: the library's own records in a session store. Independent of stores.

A note is a record like a session's, under a key that no session id has, with bytes that are not a session.
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
"""The byte 0xC1 is unused in MessagePack, so no session begins with it."""


def note_digest(*parts: str) -> str:
    """Return a digest in the form of the first part of a session key.

    Parts are digests, numbers and fixed words; only the last may contain a space.
    """
    return urlsafe_b64encode(sha256(" ".join(parts).encode()).digest()).rstrip(b"=").decode()


def note_key(*parts: str) -> str:
    """Return the key of a note, from parts as for `note_digest`. A cluster spreads notes over all nodes."""
    digest = note_digest(*parts)
    return digest + digest[:TAG_CHARS]


def encode_note(value: object) -> bytes:
    """Return the bytes of a note."""
    return NOTE_MARK + msgspec.msgpack.encode(value)


def is_note(raw: bytes) -> bool:
    """Whether stored bytes are a note, not a session."""
    return raw.startswith(NOTE_MARK)


def read_note(raw: bytes, kind: type[T]) -> T | None:
    """Decode a note; None if it is not a note of this type, or was written by another version."""
    if not is_note(raw):
        return None
    try:
        return msgspec.msgpack.decode(raw[len(NOTE_MARK) :], type=kind)
    except msgspec.MsgspecError:
        return None
