"""How one session is laid out in its file, so that a damaged file is recognised; knows no directory."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

from session_core.stores.base import Entry, StoredSession

__all__ = ("FileRecord", "decode", "encode")

_MAGIC: Final = b"SCF1"
_PREFIX: Final = struct.Struct(">4sIII")


class FileRecord(msgspec.Struct, frozen=True, array_like=True):
    """What one file says. With a `successor` it is no session any more: it remembers what its key was rotated to."""

    key: str
    version: int
    expires_at: int
    user: str | None = None
    op_session: str | None = None
    rank: int = 0
    successor: str | None = None
    data: bytes = b""

    @classmethod
    def of(cls, key: str, version: int, entry: Entry) -> FileRecord:
        """Return the record of a session."""
        return cls(key, version, entry.expires_at, entry.user, entry.op_session, entry.rank, None, entry.data)

    def stored(self) -> StoredSession:
        """Return the session that this is the record of."""
        return StoredSession(self.key, self.version, Entry(self.data, self.expires_at, self.user, self.op_session, self.rank))


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(FileRecord)


def encode(record: FileRecord) -> bytes:
    """Return the content of the record's file: header and data after their lengths and checksum."""
    header = _encoder.encode(msgspec.structs.replace(record, data=b""))
    body = header + record.data
    return _PREFIX.pack(_MAGIC, len(header), len(record.data), zlib.crc32(body)) + body


def decode(content: bytes) -> FileRecord:
    """Read a file's content. Raises `ValueError` when it is not, or not entirely, what `encode` wrote."""
    if len(content) < _PREFIX.size:
        msg = "the file is too short"
        raise ValueError(msg)
    magic, header_size, data_size, checksum = _PREFIX.unpack_from(content)
    body = content[_PREFIX.size :]
    if magic != _MAGIC or len(body) != header_size + data_size or zlib.crc32(body) != checksum:
        msg = "the file is damaged"
        raise ValueError(msg)
    try:
        header = _decoder.decode(body[:header_size])
    except msgspec.MsgspecError as error:
        msg = "the header of the file is not understood"
        raise ValueError(msg) from error
    return msgspec.structs.replace(header, data=body[header_size:])
