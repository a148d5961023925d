"""The typed data of one request: what was read, and what the handler has assigned since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import msgspec

from session_core.errors import SessionDataError
from session_core.record import DataCodec, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("Decoded", "Draft", "updated", "with_data")

D = TypeVar("D", bound=msgspec.Struct)
Decoded: TypeAlias = tuple[bytes, D]
"""Data as it is stored, and what that decodes to: an object that nobody else has."""


class Draft(Generic[D]):
    """Session data that a handler may change, beside the encoding it was read from."""

    __slots__ = ("_codec", "_fields", "_plain", "_refuse_conflicts", "base", "data")

    def __init__(
        self, codec: DataCodec[D], stored: bytes | None, *, refuse_conflicts: bool, decoded: Decoded[D] | None = None
    ) -> None:
        """`stored` is None for a new session; `decoded` may spare decoding it. Raises `UndecodableError`."""
        self._codec = codec
        self._refuse_conflicts = refuse_conflicts
        if stored is None:
            self.data: D = codec.fresh()
        else:
            self.data = codec.decode(stored) if decoded is None or decoded[0] != stored else decoded[1]
        self.base: bytes = codec.encode(self.data) if stored is None else stored
        # Where decoding the base again could give other defaults, of a time or at random, what was read is kept field by field.
        self._plain: bool | None = None if codec.repeatable else self._is_plain(self.data)
        self._fields = codec.fields(self.data) if self._plain is False else None

    @property
    def changed(self) -> bool:
        """Whether something was assigned since."""
        if self._fields is not None:
            return bool(self.changes())
        if self._codec.encode(self.data) == self.base:
            return False
        return self._has_plain_base() or bool(self.changes())

    def changes(self) -> dict[str, bytes]:
        """What was assigned since, encoded, by stored field name; nested changes are found too."""
        codec = self._codec
        if self._fields is None and codec.encode(self.data) == self.base:
            return {}
        before = codec.fields(codec.decode(self.base)) if self._fields is None else self._fields
        return {name: raw for name, raw in codec.fields(self.data).items() if raw != before[name]}

    def merged(self, record: SessionRecord) -> SessionRecord:
        """Apply the assignments to the newest record; the same record when there are none.

        Raises `SessionConflictError` where somebody else assigned something else, unless the last write is to win;
        `SessionDataError` for a value of the wrong type.
        """
        newest = bytes(record.data)
        if self._fields is None and newest == self.base:
            return with_data(record, self.encoded())
        changes = self.changes()
        if not changes:
            return record
        if self._refuse_conflicts:
            return with_data(record, self._codec.merge(self.base, newest, changes))
        return with_data(record, self._codec.apply(newest, changes))

    def encoded(self) -> bytes:
        """The data as it would be stored now, checked. Raises `SessionDataError`."""
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
        """Whether the base is the plain encoding of the data it was read as, and says everything about it."""
        return self._codec.writes_every_field and self._codec.encode(data) == self.base


def with_data(record: SessionRecord, data: bytes) -> SessionRecord:
    """Return the record holding `data`; the same record when it does already."""
    return record if data == bytes(record.data) else msgspec.structs.replace(record, data=msgspec.Raw(data))


def updated(
    codec: DataCodec[D],
    stored: bytes | None,
    function: Callable[[D], D | None] | None,
    fields: Mapping[str, object] | None = None,
) -> Decoded[D]:
    """Return data as stored (None: a new session's) after `function` has changed it, and with `fields`; checked.

    Raises what `function` raises, `UndecodableError` and `SessionDataError`.
    """
    data = codec.fresh() if stored is None else codec.decode(stored)
    if codec.writes_every_field:
        base = codec.encode(data)
        if stored is None or base == stored:  # nearly always: the new data's plain encoding is all there is to store
            encoded = codec.encode(_change(codec, data, function, fields))
            return encoded, codec.checked(encoded)
    draft = Draft(codec, stored, refuse_conflicts=False)
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
