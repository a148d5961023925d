"""The stored form of a session, and how changes of its typed data are found and merged.

The data is a map of encoded fields, so that fields of a newer version of the application survive writes of this one, and requests
that change different fields do not conflict. `session_core.sessions.unknown_fields` keeps unknown fields of nested structs and of
the record itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from os import urandom
from typing import Final, Generic, TypeVar

import msgspec

from session_core.errors import ConfigurationError, SessionConflictError, SessionDataError
from session_core.identity import Identity
from session_core.sessions.data_types import check_data_type, check_factory, decodes_alike, holds_objects, set_order
from session_core.sessions.unknown_fields import (
    AmbiguousElementError,
    Unknown,
    find_unknown,
    restore,
    restore_fields,
    shape_of,
)

__all__ = ("ActingAs", "DataCodec", "Device", "SessionRecord", "UndecodableError", "decode_record", "encode_record")

D = TypeVar("D", bound=msgspec.Struct)

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")
_join: Final = msgspec.msgpack.Encoder()
_split: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_PATH: Final = re.compile(r"\$\.(?P<field>\w+)")


class UndecodableError(Exception):
    """Stored bytes that this version of the application cannot read: corrupted, poisoned, or written by another version."""


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """The device that began a session, for the user's list; both values come from the client."""

    ip: str = ""
    user_agent: str = ""


class ActingAs(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The user as whom the owner of a session acts, and what is restored afterwards. Times are Unix milliseconds."""

    identity: Identity = msgspec.field(name="i")
    since: int = msgspec.field(name="s")
    absolute_expires_at: int = msgspec.field(name="a")
    """When the owner's session ends in any case; that of the record is when the impersonation does."""
    data: msgspec.Raw = msgspec.field(name="d", default=msgspec.Raw(b"\x80"))
    """The owner's data; that of the record belongs to the impersonation."""
    number: int = msgspec.field(name="n", default=0)
    """Random: names this impersonation under all ids of its session."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One stored session. Times are Unix milliseconds.

    Stored field names are short. Fields are only added, with a default: every later version decodes records of this one (tested
    with golden records).
    """

    created_at: int = msgspec.field(name="c")
    absolute_expires_at: int = msgspec.field(name="a")
    data: msgspec.Raw = msgspec.field(name="d", default=msgspec.Raw(b"\x80"))
    identity: Identity | None = msgspec.field(name="i", default=None)
    logged_in_at: int = msgspec.field(name="l", default=0)
    device: Device = msgspec.field(name="u", default=Device())
    vault: bytes = msgspec.field(name="t", default=b"")
    """Sealed data of the login layer (tokens); opaque here."""
    idle: int = msgspec.field(name="e", default=0)
    """The idle timeout of this login in seconds, if it has its own."""
    persistent: bool | None = msgspec.field(name="k", default=None)
    """Whether the cookie outlives the browser; None: as configured."""
    write_id: int = msgspec.field(name="w", default=0)
    """Random per write: no two writes are the same bytes, so a store can tell whether an uncertain write was this one."""
    acting_as: ActingAs | None = msgspec.field(name="m", default=None)
    """The user as whom `identity`, an administrator, acts now. All else stays the administrator's: indexes, tokens, login."""
    newer: Unknown | None = msgspec.field(name="-", default=None)
    """Fields that a newer version of this library has written; never stored under this name."""

    @property
    def acts_for(self) -> Identity | None:
        """The user for whom requests are served: the one who is acted as, else who is logged in."""
        return self.identity if self.acting_as is None else self.acting_as.identity

    def without_impersonation(self) -> SessionRecord:
        """Return the record as its owner left it when the impersonation began."""
        before = self.acting_as
        if before is None:
            return self
        absolute = before.absolute_expires_at
        return msgspec.structs.replace(self, data=before.data, absolute_expires_at=absolute, acting_as=None)


_record_decoder: Final = msgspec.msgpack.Decoder(SessionRecord)
_RECORD: Final = shape_of(SessionRecord)


def encode_record(record: SessionRecord) -> bytes:
    """Encode a record for a store, under a fresh write id."""
    newer = record.newer
    # Not a secret, but from the operating system: `random` repeats itself if an application seeds it.
    record = msgspec.structs.replace(record, write_id=int.from_bytes(urandom(8)) >> 1, newer=None)
    encoded = _encoder.encode(record)
    return encoded if newer is None else restore(_RECORD, record, encoded, newer)


def decode_record(raw: bytes) -> SessionRecord:
    """Decode stored bytes. Raises `UndecodableError` if they are not a record."""
    try:
        record = _record_decoder.decode(raw)
        if _encoder.encode(record) != raw:  # another version has written it
            record = msgspec.structs.replace(record, newer=find_unknown(_RECORD, record, raw))
    except Exception as error:  # a malicious record may raise any error: invalid text, too deep, too large
        raise UndecodableError from error
    return record


class DataCodec(Generic[D]):
    """Encodes, decodes, compares and merges one type of session data."""

    def __init__(
        self,
        data_type: type[D],
        default_factory: Callable[[], D] | None = None,
        *,
        max_bytes: int = 65536,
        refuse_conflicts: bool = True,
    ) -> None:
        """Check that `data_type` can be session data.

        Raises `ConfigurationError` when it is no msgspec.Struct, is array-like or tagged, cannot be made without arguments, would
        share an object between sessions, or forbids the fields of a newer version.
        """
        if not (isinstance(data_type, type) and issubclass(data_type, msgspec.Struct)):
            msg = f"session data must be a msgspec.Struct, not {data_type!r}; write `class AppSession(msgspec.Struct): ...`"
            raise ConfigurationError(msg)
        if data_type.__struct_config__.array_like or data_type.__struct_config__.tag is not None:
            msg = f"{data_type.__name__} must be a plain struct: array_like and tag do not work for session data"
            raise ConfigurationError(msg)
        check_data_type(data_type)
        self.data_type = data_type
        self.fresh: Callable[[], D] = default_factory or data_type
        """Returns the data of a new session."""
        self._max_bytes = max_bytes
        self._refuse_conflicts = refuse_conflicts
        order = set_order(data_type)
        self._encode = msgspec.msgpack.Encoder(order="deterministic" if order == "native" else None).encode
        self._sorts = order == "sorted"
        self.try_encode: Callable[[D], bytes] = self._encode_sorted if self._sorts else self._encode
        """As `encode`, but may raise any error, to be passed to `cannot_store`."""
        self._decoder = msgspec.msgpack.Decoder(data_type)
        self._fields = {f.name: f.encode_name for f in msgspec.structs.fields(data_type)}
        self._shape = shape_of(data_type)
        self.nested = holds_objects(data_type)
        """Whether nested values may have unknown fields."""
        self.writes_every_field = not data_type.__struct_config__.omit_defaults
        """Whether the encoding of the data is complete."""
        self.repeatable = decodes_alike(data_type)
        """Whether the same bytes always decode to the same data."""
        self.fresh_encoding: bytes | None = None
        """The encoding of fresh data, if it is always the same."""
        try:
            self.fields(self.decode(self.encode(self.fresh())))
        except Exception as error:
            msg = f"every field of {data_type.__name__} needs a default of its type (or pass default_factory=): {error!r}"
            raise ConfigurationError(msg) from error
        check_factory(self.fresh, "default_factory" if default_factory else data_type.__name__)
        if self.repeatable and default_factory is None:
            self.fresh_encoding = self.encode(self.fresh())

    @property
    def field_names(self) -> frozenset[str]:
        """The attribute names of the data type."""
        return frozenset(self._fields)

    def encode(self, data: D) -> bytes:
        """Encode the data. Raises `SessionDataError` for a value that cannot be stored."""
        try:
            return self.try_encode(data)
        except Exception as error:
            raise self.cannot_store(data, error) from error

    def differs_from_fresh(self, data: D) -> bool:
        """Whether data differs from fresh data, if that is always the same. Raises `SessionDataError`."""
        try:
            return self.try_encode(data) != self.fresh_encoding
        except Exception as error:
            raise self.cannot_store(data, error) from error

    def decode(self, stored: bytes | msgspec.Raw) -> D:
        """Decode stored data; missing fields get their defaults. Raises `UndecodableError` if it has other types."""
        try:
            return self._decoder.decode(stored)
        except Exception as error:  # __post_init__ of the data type may raise anything
            raise UndecodableError from error

    def fields(self, data: D) -> dict[str, bytes]:
        """Encode each field by itself, by its stored name. Raises `SessionDataError`."""
        try:
            encoded = {name: self._encode(getattr(data, attribute)) for attribute, name in self._fields.items()}
        except Exception as error:
            raise self.cannot_store(data, error) from error
        return restore_fields(self._shape, data, encoded) if self._sorts else encoded

    def find_unknown(self, data: D, stored: bytes) -> Unknown | None:
        """Return the unknown fields of nested structs in `stored`, which was decoded as `data`; None without any."""
        unknown = find_unknown(self._shape, data, stored)
        return unknown if unknown is not None and unknown.below else None

    def restore(self, data: D, changes: dict[str, bytes], unknown: Unknown) -> dict[str, bytes]:
        """Put unknown fields back into changed data.

        Raises `SessionConflictError` with the field's name if it is ambiguous to which new value they belong.
        """
        try:
            return restore_fields(self._shape, data, changes, unknown)
        except AmbiguousElementError as error:
            msg = (
                f"{self.data_type.__name__}.{error}: an element of a list was replaced that has fields of a newer version of the "
                "application, which would be lost; change the element itself"
            )
            raise SessionConflictError(msg, fields=(str(error),)) from error

    def merge(self, base: bytes, newest: bytes, changes: dict[str, bytes]) -> bytes:
        """Apply `changes`, made on `base`, to `newest`.

        Raises `SessionConflictError` with the names of fields that other requests changed to other values, unless the last write
        wins.
        """
        if self._refuse_conflicts and newest != base:
            # Compared as stored: a field missing in both could decode to two different defaults.
            before, now = _split.decode(base), _split.decode(newest)
            clashing = tuple(
                attribute
                for attribute, name in self._fields.items()
                if name in changes and _bytes(now.get(name)) not in {_bytes(before.get(name)), changes[name]}
            )
            if clashing:
                msg = "another request changed the same field of the session"
                raise SessionConflictError(msg, fields=clashing)
        return self.apply(newest, changes)

    def apply(self, stored: bytes, changes: dict[str, bytes]) -> bytes:
        """Return `stored` with `changes`, checked against the declared types.

        Known fields come first and in their declared order, so that the result equals the plain encoding of the data. Raises
        `SessionDataError` for a value of the wrong type, or data beyond the size limit.
        """
        if not changes:
            return stored
        old = _split.decode(stored)
        known = self._fields.values()
        merged = {
            name: msgspec.Raw(changes[name]) if name in changes else old[name] for name in known if name in {*old, *changes}
        }
        # Fields of a newer version of the application stay unchanged.
        merged.update((name, raw) for name, raw in old.items() if name not in merged)
        encoded = _join.encode(merged)
        self.checked(encoded)
        return encoded

    def checked(self, encoded: bytes) -> D:
        """Decode `encoded` to check it before storing: assignments to fields are not type-checked earlier.

        Raises `SessionDataError` for a value of the wrong type, or data beyond the size limit.
        """
        try:
            data = self._decoder.decode(encoded)
        except Exception as error:
            # Only the place of the error: the decoder's message may quote the value.
            path = str(error).rpartition(" - at ")[2] if " - at " in str(error) else type(error).__name__
            msg = f"{self.data_type.__name__} has a value of the wrong type, at {path}"
            raise SessionDataError(msg, fields=self._named_in(path)) from error
        if len(encoded) > self._max_bytes:
            msg = f"{self.data_type.__name__} takes {len(encoded)} bytes, more than the limit of {self._max_bytes}"
            raise SessionDataError(msg)
        return data

    def cannot_store(self, data: D, error: Exception) -> SessionDataError:
        """Return the error for data that cannot be encoded; it names the field."""
        for attribute in self._fields:
            try:
                self._encode(getattr(data, attribute))
            except Exception as found:  # noqa: BLE001 - it becomes a SessionDataError
                msg = f"{self.data_type.__name__}.{attribute} contains a value that cannot be stored: {type(found).__name__}"
                return SessionDataError(msg, fields=(attribute,))
        return SessionDataError(f"{self.data_type.__name__} contains a value that cannot be stored: {type(error).__name__}")

    def _encode_sorted(self, data: D) -> bytes:
        return restore(self._shape, data, self._encode(data))

    def _named_in(self, path: str) -> tuple[str, ...]:
        match = _PATH.search(path)
        return tuple(attribute for attribute, name in self._fields.items() if match is not None and name == match["field"])


def _bytes(raw: msgspec.Raw | None) -> bytes | None:
    return None if raw is None else bytes(raw)
