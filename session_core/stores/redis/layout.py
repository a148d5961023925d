"""The layout in Redis: names of keys and bytes of values. Independent of connections.

    {prefix}{tag}DIGEST   a record, a reservation, or a pointer to the key that followed
    {prefix}uDIGEST       index: the sessions of a user
    {prefix}oDIGEST       index: the sessions of one session at the OP
    {prefix}cNAME         a claim

The library's session keys end in a slot tag that a rotation inherits (`session_core.ids`). It becomes the hash tag
of the Redis key, so the old and the new key of a rotation are in one slot of a cluster, and one script can move the session.
A session key of any other form is its own hash tag: it can be anything but rotated on a cluster.

The first byte of a value says what it is: 128 and above is a record, `>` a pointer, `P` a reservation of a login under way,
`X` the tombstone of a reservation that lost its place. A record is

    flags, version, expires_at, rank, user, OP session, data

with numbers of 3+5+5 bytes (times since 2020) or, where they do not fit, 8 each, and index keys of 32 bytes or, where they
are not the library's digests, as they are. A member is the rest of a record's name after the prefix. An index is a sorted set
of members whose scores count up in the order of entry; a small one takes hardly more than the members themselves. The names of
indexes are short digests, too: a collision of two users would be harmless, because every reader compares the record. This layout
keeps a session of 300 bytes under 700 with both indexes; hashes, sets or readable names would not.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from session_core.errors import ConfigurationError
from session_core.ids import DIGEST_CHARS, TAG_CHARS
from session_core.stores.announcements import Trace
from session_core.stores.base import Entry, SessionIndex, StoredSession

__all__ = (
    "INDEX_CELL_MS",
    "TRACE_BYTES",
    "Layout",
    "decode_reservation",
    "decode_trace",
    "encode_record",
    "is_in_use",
    "key_of",
    "member_of",
    "owner_bytes",
    "pointed_to",
    "pointer_to",
    "read_record",
)  # fmt: skip

EPOCH_MS: Final = 1_577_836_800_000
"""2020-01-01; with five bytes the short form reaches the year 2054."""
INDEX_CELL_MS: Final = 3_600_000
"""An index is kept until the end of the hour after the one in which its last member expires, so that most writes that
extend a session's life need not touch it."""

_RECORD: Final = 0x80
_WIDE: Final = 0x01
_NONE, _PACKED, _PLAIN = 0, 1, 2
_BOTH_PACKED: Final = _PACKED | _PACKED << 2
"""The kinds of both index keys, where both are the library's digests."""
_USUAL: Final = _RECORD | _BOTH_PACKED << 1
"""The first byte of a record with both index keys, digests of the library, and short numbers."""
_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_FROM_BASE64: Final = bytes.maketrans(b"+/", b"-_")
_HEAD_BYTES: Final = 14
_USUAL_BYTES: Final = _HEAD_BYTES + 2 * 32
_FIVE_BYTES: Final = 0xFF_FFFF_FFFF
_NAME_BYTES: Final = 9
_MAX_KEY_CHARS: Final = 250
TRACE_BYTES: Final = 9 + _MAX_KEY_CHARS + 2
"""Of a value: enough for the numbers of a record, and for a whole pointer."""


class Layout:
    """Names of the keys of one application. `prefix` keeps several applications in one database apart."""

    __slots__ = ("_head", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._head = len(prefix)

    def record(self, key: str) -> bytes:
        """The Redis key of a session key."""
        return self.prefix + member_of(key)

    def session_key(self, name: bytes) -> str:
        """The session key of the Redis key of a record."""
        return key_of(name[self._head :])

    def index(self, index: SessionIndex) -> bytes:
        """The Redis key of an index."""
        return self.user_index(index.user) if index.user is not None else self.op_index(index.op_session or "")

    def user_index(self, user: str) -> bytes:
        """The Redis key of the index of a user."""
        return self.prefix + b"u" + _short(user)

    def op_index(self, op_session: str) -> bytes:
        """The Redis key of the index of an OP session."""
        return self.prefix + b"o" + _short(op_session)

    def indexes(self, entry: Entry) -> list[bytes]:
        """The Redis keys of the indexes that an entry belongs to, the user's first."""
        names = [self.user_index(entry.user)] if entry.user is not None else []
        return [*names, self.op_index(entry.op_session)] if entry.op_session is not None else names

    def check_one_slot(self, old_key: str, new_key: str) -> None:
        """Raise `ConfigurationError` for two keys that a cluster keeps in two slots."""
        if member_of(old_key).partition(b"}")[0] != member_of(new_key).partition(b"}")[0]:
            msg = "on a Redis cluster a session can only be rotated to a key with the same slot tag (new_session_id(after=...))"
            raise ConfigurationError(msg)

    def claim(self, name: str) -> bytes:
        """The Redis key of a claim."""
        return self.prefix + b"c" + name.encode("ascii")

    def channel(self) -> bytes:
        """The channel on which scripts announce ended sessions."""
        return self.prefix + b"ended"

    def records_pattern(self) -> bytes:
        """The SCAN pattern of records (and of reservations and pointers)."""
        return self.prefix + b"{*"


@lru_cache(maxsize=4096)
def member_of(key: str) -> bytes:
    """The part of a record's name after the prefix; what indexes and pointers hold."""
    digest = _pack(key[:DIGEST_CHARS]) if len(key) == DIGEST_CHARS + TAG_CHARS else None
    if digest is None:
        if "{" in key or "}" in key or len(key) > _MAX_KEY_CHARS:
            msg = f"a session key must not contain braces or more than {_MAX_KEY_CHARS} characters"
            raise ValueError(msg)
        return b"{%b}" % key.encode("ascii")
    return b"{%b}%b" % (key[DIGEST_CHARS:].encode("ascii"), digest)


def key_of(member: bytes) -> str:
    """The session key that `member_of` made `member` of."""
    tag, _, digest = member[1:].partition(b"}")
    return (_unpack(digest) if digest else "") + tag.decode("ascii")


def pointer_to(key: str, until: int) -> bytes:
    """The value of a pointer to the successor of a key."""
    return b">%b%b" % (max(until, 0).to_bytes(8), member_of(key))


def owner_bytes(owner: str | None) -> bytes:
    """A user or an OP session as scripts compare it: kind and bytes; empty for none."""
    kind, raw = _owner(owner)
    return b"" if kind == _NONE else b"%d%b" % (kind, raw)


def encode_record(version: int, entry: Entry) -> bytes:
    """Return the value of a record."""
    kinds, owners = _owners(entry.user, entry.op_session)
    flags, expires, rank = _RECORD | kinds, entry.expires_at - EPOCH_MS, entry.rank - EPOCH_MS
    if 0 <= expires < 1 << 40 and 0 <= rank < 1 << 40 and version < 1 << 24:
        # As one number of 14 bytes, which takes half the time of a Struct with numbers of 3 and 5.
        return (((flags << 24 | version) << 40 | expires) << 40 | rank).to_bytes(_HEAD_BYTES) + owners + entry.data
    rank_bytes = entry.rank.to_bytes(8, signed=True)
    numbers = b"%c%b%b%b" % (flags | _WIDE, version.to_bytes(8), max(entry.expires_at, 0).to_bytes(8), rank_bytes)
    return numbers + owners + entry.data


def read_record(key: str, value: bytes | None, now: int) -> StoredSession | None:
    """Return the live session in a value, or None."""
    if value and value[0] == _USUAL and len(value) >= _USUAL_BYTES:  # fast path: a login with a `sid`
        numbers = int.from_bytes(value[1:_HEAD_BYTES])
        expires_at = (numbers >> 40 & _FIVE_BYTES) + EPOCH_MS
        if expires_at <= now:
            return None
        user, op_session = _unpack_owners(value[_HEAD_BYTES:_USUAL_BYTES])
        rank = (numbers & _FIVE_BYTES) + EPOCH_MS
        return StoredSession(key, numbers >> 80, Entry(value[_USUAL_BYTES:], expires_at, user, op_session, rank))
    if not value or value[0] < _RECORD or len(value) < _HEAD_BYTES:
        return None
    flags = value[0]
    if flags & _WIDE:
        version, expires_at = int.from_bytes(value[1:9]), int.from_bytes(value[9:17])
        rank, at = int.from_bytes(value[17:25], signed=True), 25
    else:
        numbers = int.from_bytes(value[1:_HEAD_BYTES])
        version, expires_at = numbers >> 80, (numbers >> 40 & _FIVE_BYTES) + EPOCH_MS
        rank, at = (numbers & _FIVE_BYTES) + EPOCH_MS, _HEAD_BYTES
    if expires_at <= now:
        return None
    try:
        owner, at = _read_owner(value, at, flags >> 1 & 3)
        op_owner, at = _read_owner(value, at, flags >> 3 & 3)
    except UnicodeDecodeError:  # damaged: the layer above refuses a session without data
        return StoredSession(key, version, Entry(b"", expires_at))
    return StoredSession(key, version, Entry(value[at:], expires_at, owner, op_owner, rank))


def decode_trace(value: bytes | None, now: int) -> Trace | None:
    """Decode the first `TRACE_BYTES` of a value: a live session, a successor, or None."""
    if not value:
        return None
    if value[0] >= _RECORD:
        expires_at = int.from_bytes(value[9:17]) if value[0] & _WIDE else int.from_bytes(value[4:9]) + EPOCH_MS
        return Trace(expires_at) if expires_at > now else None
    until = int.from_bytes(value[1:9])
    return Trace(until, key_of(value[9:])) if value[:1] == b">" and until > now else None


def decode_reservation(value: bytes | None) -> tuple[int, bytes] | None:
    """Return the rank of a login in progress, and the member of the same user's session that it moves (empty for none)."""
    if not value or value[:1] != b"P":
        return None
    return int.from_bytes(value[9:17], signed=True), value[17:]


def pointed_to(value: bytes | None) -> bytes | None:
    """Return the member that a pointer leads to; None if the value is no pointer."""
    return value[9:] if value is not None and value[:1] == b">" and len(value) > 9 else None  # noqa: PLR2004 - its head


def is_in_use(value: bytes | None) -> bool:
    """Whether a member with this value stays in its indexes: a record, a reservation or a pointer."""
    return value is not None and (value[:1] >= b"\x80" or value[:1] in {b"P", b">"})


def _short(value: str) -> bytes:
    return blake2b(value.encode("ascii"), digest_size=_NAME_BYTES).digest()


@lru_cache(maxsize=4096)
def _owners(user: str | None, op_session: str | None) -> tuple[int, bytes]:
    """Return flags and bytes of a record's owners; cached, because requests of one session often follow each other."""
    (user_kind, user_raw), (op_kind, op_raw) = _owner(user), _owner(op_session)
    return user_kind << 1 | op_kind << 3, _sized(user_kind, user_raw) + _sized(op_kind, op_raw)


@lru_cache(maxsize=4096)
def _owner(owner: str | None) -> tuple[int, bytes]:
    if owner is None:
        return _NONE, b""
    packed = _pack(owner) if len(owner) == DIGEST_CHARS else None
    return (_PLAIN, owner.encode("ascii")) if packed is None else (_PACKED, packed)


def _sized(kind: int, raw: bytes) -> bytes:
    return len(raw).to_bytes(2) + raw if kind == _PLAIN else raw


def _read_owner(value: bytes, at: int, kind: int) -> tuple[str | None, int]:
    if kind == _NONE:
        return None, at
    if kind == _PACKED:
        return _unpack_owners(value[at : at + 32])[0], at + 32
    start = at + 2
    end = start + int.from_bytes(value[at:start])
    return value[start:end].decode("ascii"), end


@lru_cache(maxsize=4096)
def _unpack_owners(digests: bytes) -> tuple[str, ...]:
    """The index keys in these bytes, one or two; consecutive requests are often of the same session."""
    return tuple(_unpack(digests[at : at + 32]) for at in range(0, len(digests) or 1, 32))


def _pack(digest: str) -> bytes | None:
    """Return the 32 bytes of a digest in base64url; None if they would not encode back to the same text."""
    try:
        raw = a2b_base64(digest.encode("ascii").translate(_TO_BASE64) + b"=", strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        return None
    # The last character carries two bits that decoding drops.
    return raw if digest[-1] in "AEIMQUYcgkosw048" else None


def _unpack(digest: bytes) -> str:
    return b2a_base64(digest, newline=False).rstrip(b"=").translate(_FROM_BASE64).decode("ascii")
