"""How a session is laid out in a store, and how changes to its typed data are found and merged.

The data is kept as a map of encoded fields, so that a field that this version of the application does not know (a newer
version runs beside it) survives its writes, and so that two requests that change different fields do not meet.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from session_core.errors import ConfigurationError, SessionConflictError, SessionDataError
from session_core.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("DataCodec", "Device", "SessionRecord", "decode_record", "encode_record")

D = TypeVar("D", bound=msgspec.Struct)

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")
_split: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a session was begun, for the list that its user sees; both are what the client said of itself."""

    ip: str = ""
    user_agent: str = ""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    write_id: int = msgspec.field(name="w", default=0)
    """Random per write: tells whether an uncertain write was this one."""


_record_decoder: Final = msgspec.msgpack.Decoder(SessionRecord)


def encode_record(record: SessionRecord) -> bytes:
    """Encode a record for a store, under a fresh write id."""
    return _encoder.encode(msgspec.structs.replace(record, write_id=secrets.randbits(63)))


def decode_record(raw: bytes) -> SessionRecord:
    """Decode a store's bytes. Raises `msgspec.MsgspecError` for anything that is no record."""
    return _record_decoder.decode(raw)


class DataCodec(Generic[D]):
    """Encodes, decodes, compares and merges one type of session data."""

    def __init__(self, data_type: type[D], default_factory: Callable[[], D] | None = None, *, max_bytes: int = 65536) -> None:
        """Check that `data_type` can be session data.

        Raises `ConfigurationError` when it is no msgspec.Struct, is array-like or tagged, or cannot be made without arguments.
        """
        if not (isinstance(data_type, type) and issubclass(data_type, msgspec.Struct)):
            msg = f"session data must be a msgspec.Struct, not {data_type!r}; write `class AppSession(msgspec.Struct): ...`"
            raise ConfigurationError(msg)
        if data_type.__struct_config__.array_like or data_type.__struct_config__.tag is not None:
            msg = f"{data_type.__name__} must be a plain struct: array_like and tag do not work for session data"
            raise ConfigurationError(msg)
        self.data_type = data_type
        self.fresh: Callable[[], D] = default_factory or data_type
        """Makes the data of a new session."""
        self._max_bytes = max_bytes
        self._decoder = msgspec.msgpack.Decoder(data_type)
        self._fields = {f.name: f.encode_name for f in msgspec.structs.fields(data_type)}
        try:
            self.decode(self.encode(self.fresh()))
        except Exception as error:
            msg = f"every field of {data_type.__name__} needs a default of its own type (or pass default_factory=): {error}"
            raise ConfigurationError(msg) from error

    @property
    def field_names(self) -> frozenset[str]:
        """The attribute names of the data type."""
        return frozenset(self._fields)

    def encode(self, data: D) -> bytes:
        """Encode the data. Raises `SessionDataError` for a value that cannot be stored."""
        try:
            return _encoder.encode(data)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            msg = f"{self.data_type.__name__} holds a value that cannot be stored: {type(error).__name__}"
            raise SessionDataError(msg) from error

    def decode(self, stored: bytes) -> D:
        """Decode stored data; missing fields take their defaults. Raises `msgspec.MsgspecError` when it does not fit."""
        return self._decoder.decode(stored)

    def changes(self, stored: bytes, data: D) -> dict[str, bytes]:
        """Return the encoded fields of `data` that differ from `stored`, by their stored names."""
        # The usual case, nothing changed, costs one encoding: what was written is the canonical encoding.
        if self.encode(data) == stored:
            return {}
        base = self._encoded_fields(self.decode(stored))
        mine = self._encoded_fields(data)
        return {name: raw for name, raw in mine.items() if raw != base[name]}

    def merge(self, base: bytes, newest: bytes, changes: dict[str, bytes]) -> bytes:
        """Apply `changes`, made on `base`, to `newest`.

        Raises `SessionConflictError` naming the fields that others changed to something else meanwhile.
        """
        if newest != base:
            before = self._encoded_fields(self.decode(base))
            now = self._encoded_fields(self.decode(newest))
            clashing = tuple(
                attribute
                for attribute, name in self._fields.items()
                if name in changes and now[name] not in (before[name], changes[name])
            )
            if clashing:
                msg = "another request changed the same field of the session"
                raise SessionConflictError(msg, fields=clashing)
        return self.apply(newest, changes)

    def apply(self, stored: bytes, changes: dict[str, bytes]) -> bytes:
        """Return `stored` with `changes`, checked against the declared types.

        Raises `SessionDataError` for a value of the wrong type, or data beyond the size limit.
        """
        if not changes:
            return stored
        fields: dict[str, msgspec.Raw] = _split.decode(stored)
        merged = {name: msgspec.Raw(changes[name]) if name in changes else fields.get(name) for name in self._fields.values()}
        merged = {name: raw for name, raw in merged.items() if raw is not None}
        merged.update((name, raw) for name, raw in fields.items() if name not in merged)
        new = _encoder.encode(merged)
        try:
            self.decode(new)
        except msgspec.MsgspecError as error:
            # msgspec names the type and the path, never the value.
            msg = f"{self.data_type.__name__}: {error}"
            raise SessionDataError(msg) from error
        if len(new) > self._max_bytes:
            msg = f"{self.data_type.__name__} takes {len(new)} bytes, more than the limit of {self._max_bytes}"
            raise SessionDataError(msg)
        return new

    def _encoded_fields(self, data: D) -> dict[str, bytes]:
        try:
            return {name: _encoder.encode(getattr(data, attribute)) for attribute, name in self._fields.items()}
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            msg = f"{self.data_type.__name__} holds a value that cannot be stored: {type(error).__name__}"
            raise SessionDataError(msg) from error
