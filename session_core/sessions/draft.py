"""The typed data of one request: what was read, and what the handler has assigned since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from session_core.errors import SessionDataError
from session_core.sessions.record import DataCodec, SessionRecord

if TYPE_CHECKING:
    from session_core.sessions.unknown_fields import Unknown

__all__ = ("Draft", "updated", "with_data")

D = TypeVar("D", bound=msgspec.Struct)


class Draft(Generic[D]):
    """Session data that a handler may change, with the encoding it was read from."""

    __slots__ = ("_codec", "_fields", "_plain", "_unknown", "base", "data", "made")

    def __init__(self, codec: DataCodec[D], stored: bytes | None, decoded: D | None = None) -> None:
        """`stored` is None for a new session; `decoded` is the data, if already decoded. Raises `UndecodableError`."""
        self._codec = codec
        self._fields: dict[str, bytes] | None = None
        self._plain: bool | None = None
        self._unknown: Unknown | None = None
        """Fields of nested structs that only a newer version of the application knows."""
        self.made: D | None = None
        """What `updated` has made of the newest data, where it ran last; it has no other references."""
        if stored is None:
            self.data: D = codec.fresh() if decoded is None else decoded
            self.base: bytes = codec.fresh_encoding or codec.encode(self.data)
        else:
            self.data = codec.decode(stored) if decoded is None else decoded
            self.base = stored
        if not codec.repeatable or codec.nested:
            self._plain = self._is_plain(self.data)
            if not self._plain and codec.nested:
                # Found now, before the handler moves or replaces their objects.
                self._unknown = codec.find_unknown(self.data, self.base)
            if not self._plain and not codec.repeatable:
                # If decoding again could give other defaults (a time, a random value), the encoding by field is kept.
                self._fields = codec.fields(self.data)

    def is_changed(self) -> bool:
        """Whether the data was changed. Raises `SessionDataError` for a value that cannot be stored."""
        if self._fields is not None:
            return bool(self._assigned())
        codec = self._codec
        try:
            if codec.try_encode(self.data) == self.base:
                return False
        except Exception as error:
            raise codec.cannot_store(self.data, error) from error
        return self._has_plain_base() or bool(self._assigned())

    def changes(self) -> dict[str, bytes]:
        """Return the changed fields, encoded, by stored name; nested changes are found too.

        Raises `SessionConflictError` if a field of a newer version would be lost, and `SessionDataError`.
        """
        changes = self._assigned()
        return self._codec.restore(self.data, changes, self._unknown) if changes and self._unknown is not None else changes

    def _assigned(self) -> dict[str, bytes]:
        codec = self._codec
        if self._fields is None and codec.encode(self.data) == self.base:
            return {}
        before = codec.fields(codec.decode(self.base)) if self._fields is None else self._fields
        return {name: raw for name, raw in codec.fields(self.data).items() if raw != before[name]}

    def merged(self, record: SessionRecord) -> SessionRecord:
        """Apply the assignments to the newest record; the same record when there are none.

        Raises `SessionConflictError` if another request assigned another value, unless the last write wins;
        `SessionDataError` for a value of the wrong type; `UndecodableError` if another version of the application has written
        data that this one cannot decode.
        """
        return with_data(record, self._merged(bytes(record.data)))

    def updated(
        self, function: Callable[[D], D | None] | None, fields: Mapping[str, object], record: SessionRecord
    ) -> SessionRecord:
        """Return the newest record with the assignments, `function` and `fields` applied; its data is in `made`.

        Raises what `merged` and the function `updated` raise.
        """
        codec, newest = self._codec, bytes(record.data)
        if newest == self.base and codec.writes_every_field and codec.encode(self.data) == newest:
            # The usual case: nothing was assigned, and the stored data is the plain encoding of what was read.
            encoded = codec.encode(_change(codec, codec.decode(newest), function, fields))
            self.made = codec.checked(encoded)
        else:
            encoded, self.made = updated(codec, self._merged(newest), function, fields)
        return record if encoded == newest else msgspec.structs.replace(record, data=msgspec.Raw(encoded))

    def _merged(self, newest: bytes) -> bytes:
        if self._fields is None and newest == self.base:
            return self.encoded()
        if newest != self.base:
            self._codec.decode(newest)
        changes = self.changes()
        if not changes:
            return newest
        return self._codec.merge(self.base, newest, changes)

    def encoded(self) -> bytes:
        """Return the data encoded for the store, checked. Raises `SessionDataError`."""
        if self._fields is None:
            encoded = self._codec.encode(self.data)
            if encoded == self.base:
                return self.base
            if self._has_plain_base():  # so its successor is the plain encoding of the data now
                self._codec.checked(encoded)
                return encoded
        return self._codec.apply(self.base, self.changes())

    def _has_plain_base(self) -> bool:
        if self._plain is None:
            self._plain = self._is_plain(self._codec.decode(self.base))
        return self._plain

    def _is_plain(self, data: D) -> bool:
        """Whether the base is the plain and complete encoding of its data."""
        return self._codec.writes_every_field and self._codec.encode(data) == self.base


def with_data(record: SessionRecord, data: bytes) -> SessionRecord:
    """Return the record holding `data`; the same record when it does already."""
    return record if data == bytes(record.data) else msgspec.structs.replace(record, data=msgspec.Raw(data))


def updated(
    codec: DataCodec[D],
    stored: bytes | None,
    function: Callable[[D], D | None] | None,
    fields: Mapping[str, object] | None = None,
) -> tuple[bytes, D]:
    """Apply `function` and `fields` to stored data (None for a new session); return it encoded and checked.

    Raises what `function` raises, `UndecodableError` and `SessionDataError`.
    """
    data = codec.fresh() if stored is None else codec.decode(stored)
    if codec.writes_every_field:
        base = codec.encode(data)
        if stored is None or base == stored:  # the usual case: only the plain encoding of the new data is stored
            encoded = codec.encode(_change(codec, data, function, fields))
            return encoded, codec.checked(encoded)
    draft = Draft(codec, stored)
    draft.data = _change(codec, draft.data, function, fields)
    encoded = draft.encoded()
    return encoded, codec.decode(encoded)


def _change(codec: DataCodec[D], data: D, function: Callable[[D], D | None] | None, fields: Mapping[str, object] | None) -> D:
    result = function(data) if function else None
    if result is not None:
        if not isinstance(result, codec.data_type):
            msg = f"the function must return None or a {codec.data_type.__name__}, and must not be async"
            raise SessionDataError(msg)
        data = result
    return msgspec.structs.replace(data, **fields) if fields else data
