"""How a session is laid out in a store, and how changes to its typed data are found and merged.

The data is kept as a map of encoded fields, so that a field that this version of the application does not know (a newer
version runs beside it) survives its writes, and so that two requests that change different fields do not meet. Fields of nested
structs, and those of the record itself, survive by `session_core.sessions.unknown_fields`.
"""

from __future__ import annotations

import re
from os import urandom
from typing import TYPE_CHECKING, Final, Generic, TypeVar

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

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("ActingAs", "DataCodec", "Device", "SessionRecord", "UndecodableError", "decode_record", "encode_record")

D = TypeVar("D", bound=msgspec.Struct)

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")
_join: Final = msgspec.msgpack.Encoder()
_split: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_PATH: Final = re.compile(r"\$\.(?P<field>\w+)")


class UndecodableError(Exception):
    """Stored bytes that this version of the application cannot read: corrupted, poisoned, or written by another version."""


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a session was begun, for the list that its user sees; both are what the client said of itself."""

    ip: str = ""
    user_agent: str = ""


class ActingAs(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The user as whom the owner of a session acts. Beside it, what the session goes back to. Times are Unix milliseconds."""

    identity: Identity = msgspec.field(name="i")
    since: int = msgspec.field(name="s")
    absolute_expires_at: int = msgspec.field(name="a")
    """When the owner's session ends in any case; that of the record is when the impersonation does."""
    data: msgspec.Raw = msgspec.field(name="d", default=msgspec.Raw(b"\x80"))
    """The owner's data; that of the record belongs to the impersonation."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One session at rest. Times are Unix milliseconds.

    Field names are short in storage. A field is only ever added, with a default: records written by this version are
    decoded by every later one (golden records in the tests hold it to that).
    """

    created_at: int = msgspec.field(name="c")
    absolute_expires_at: int = msgspec.field(name="a")
    data: msgspec.Raw = msgspec.field(name="d", default=msgspec.Raw(b"\x80"))
    identity: Identity | None = msgspec.field(name="i", default=None)
    logged_in_at: int = msgspec.field(name="l", default=0)
    device: Device = msgspec.field(name="u", default=Device())
    vault: bytes = msgspec.field(name="t", default=b"")
    """Sealed by the layer that owns it (the relying party's tokens); opaque here."""
    idle: int = msgspec.field(name="e", default=0)
    """The idle timeout of this login in seconds, where it has one of its own."""
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
    # Of the operating system, though no secret: what `random` gives repeats itself where an application seeds it.
    record = msgspec.structs.replace(record, write_id=int.from_bytes(urandom(8)) >> 1, newer=None)
    encoded = _encoder.encode(record)
    return encoded if newer is None else restore(_RECORD, record, encoded, newer)


def decode_record(raw: bytes) -> SessionRecord:
    """Decode a store's bytes. Raises `UndecodableError` for anything that is no record."""
    try:
        record = _record_decoder.decode(raw)
        if _encoder.encode(record) != raw:  # another version has written it
            record = msgspec.structs.replace(record, newer=find_unknown(_RECORD, record, raw))
    except Exception as error:  # a poisoned record may raise anything: wrong text, too deep, too large
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
        """Makes the data of a new session."""
        self._max_bytes = max_bytes
        self._refuse_conflicts = refuse_conflicts
        order = set_order(data_type)
        self._encode = msgspec.msgpack.Encoder(order="deterministic" if order == "native" else None).encode
        self._sorts = order == "sorted"
        self.try_encode: Callable[[D], bytes] = self._encode_sorted if self._sorts else self._encode
        """As `encode`, but what it raises may be anything, and has to go through `cannot_store`."""
        self._decoder = msgspec.msgpack.Decoder(data_type)
        self._fields = {f.name: f.encode_name for f in msgspec.structs.fields(data_type)}
        self._shape = shape_of(data_type)
        self.nested = holds_objects(data_type)
        """Whether there may be fields below that this version does not know."""
        self.writes_every_field = not data_type.__struct_config__.omit_defaults
        """Whether the encoding of the data says everything about it."""
        self.repeatable = decodes_alike(data_type)
        """Whether the same bytes always decode to the same data."""
        self.fresh_encoding: bytes | None = None
        """What fresh data encodes to, where that is always the same."""
        try:
            self.fields(self.decode(self.encode(self.fresh())))
        except Exception as error:
            msg = f"every field of {data_type.__name__} needs a default of its own type (or pass default_factory=): {error!r}"
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
        """Whether data that was fresh was changed since, where fresh data is always the same. Raises `SessionDataError`."""
        try:
            return self.try_encode(data) != self.fresh_encoding
        except Exception as error:
            raise self.cannot_store(data, error) from error

    def decode(self, stored: bytes | msgspec.Raw) -> D:
        """Decode stored data; missing fields take their defaults. Raises `UndecodableError` when it does not fit."""
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
        """Return the fields in `stored`, which was decoded as `data`, that nested structs do not have; None without any."""
        unknown = find_unknown(self._shape, data, stored)
        return unknown if unknown is not None and unknown.below else None

    def restore(self, data: D, changes: dict[str, bytes], unknown: Unknown) -> dict[str, bytes]:
        """Put unknown fields back into changes of the data they were found in.

        Raises `SessionConflictError` naming the field, where it is not clear to which new value they belong.
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

        Raises `SessionConflictError` naming the fields that others changed to something else meanwhile, where these are refused.
        """
        if self._refuse_conflicts and newest != base:
            # As stored, not as decoded: a field that is missing in both would decode to two different defaults.
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
        # What a newer version of the application wrote stays as it is.
        merged.update((name, raw) for name, raw in old.items() if name not in merged)
        encoded = _join.encode(merged)
        self.checked(encoded)
        return encoded

    def checked(self, encoded: bytes) -> D:
        """Return what `encoded` decodes to, if it may be stored: nothing checks the type of what is assigned to a field before.

        Raises `SessionDataError` for a value of the wrong type, or data beyond the size limit.
        """
        try:
            data = self._decoder.decode(encoded)
        except Exception as error:
            # Only where it is wrong: the decoder's own words may quote the value.
            path = str(error).rpartition(" - at ")[2] if " - at " in str(error) else type(error).__name__
            msg = f"{self.data_type.__name__} would hold a value that does not fit its type, at {path}"
            raise SessionDataError(msg, fields=self._named_in(path)) from error
        if len(encoded) > self._max_bytes:
            msg = f"{self.data_type.__name__} takes {len(encoded)} bytes, more than the limit of {self._max_bytes}"
            raise SessionDataError(msg)
        return data

    def cannot_store(self, data: D, error: Exception) -> SessionDataError:
        """Return what is raised for data that cannot be encoded; it names the field."""
        for attribute in self._fields:
            try:
                self._encode(getattr(data, attribute))
            except Exception as found:  # noqa: BLE001 - it becomes a SessionDataError
                msg = f"{self.data_type.__name__}.{attribute} holds a value that cannot be stored: {type(found).__name__}"
                return SessionDataError(msg, fields=(attribute,))
        return SessionDataError(f"{self.data_type.__name__} holds a value that cannot be stored: {type(error).__name__}")

    def _encode_sorted(self, data: D) -> bytes:
        return restore(self._shape, data, self._encode(data))

    def _named_in(self, path: str) -> tuple[str, ...]:
        match = _PATH.search(path)
        return tuple(attribute for attribute, name in self._fields.items() if match is not None and name == match["field"])


def _bytes(raw: msgspec.Raw | None) -> bytes | None:
    return None if raw is None else bytes(raw)
