"""Keeps unknown fields of structs at any depth, and sorts sets. Independent of sessions.

While two versions of the application run, the older one decodes structs without fields of the newer one, and would drop these.
`find_unknown` collects the fields after decoding, `restore` puts them into the next encoding.

They belong, in this order: to the same object; to the value in the same place (field of a struct, key of a dict); in a list, to
an equal value, then to the same index if the length is unchanged. A list in which an element with such fields was replaced in
another way is refused as ambiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw
from msgspec import inspect as types

from session_core.sessions.data_types import parts_of

__all__ = ("AmbiguousElementError", "ObjectShape", "Unknown", "find_unknown", "restore", "restore_fields", "shape_of")

_encode: Final = msgspec.msgpack.Encoder().encode
_split_map: Final = msgspec.msgpack.Decoder(dict[Any, Raw]).decode
_split_array: Final = msgspec.msgpack.Decoder(list[Raw]).decode
_ARRAYS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_Place: TypeAlias = Any
"""The encoded name of a field, the key of a dict, or the index in a list."""


class AmbiguousElementError(Exception):
    """An element with unknown fields was replaced, and it is ambiguous by which."""


class Unknown:
    """A decoded value with unknown stored fields, or one that contains such a value. Immutable."""

    __slots__ = ("below", "fields", "shape", "size", "value")

    def __init__(
        self, shape: _Shape, value: object, below: dict[_Place, Unknown], fields: Sequence[tuple[str, Raw]] = (), size: int = 0
    ) -> None:
        self.shape = shape
        self.value = value
        self.below = below
        self.fields = fields
        """By name; empty for an array-like struct."""
        self.size = size
        """The length of a list."""

    def walk(self) -> Iterator[Unknown]:
        """Iterate over this and everything below."""
        yield self
        for unknown in self.below.values():
            yield from unknown.walk()

    def without_below(self) -> Unknown:
        """Return only the fields of this value itself."""
        return Unknown(self.shape, self.value, {}, self.fields, self.size)


class _Restoring:
    """The decoded objects during the encoding of one value."""

    def __init__(self, before: Unknown | None, value: object) -> None:
        self._found = {} if before is None else {id(unknown.value): unknown for unknown in before.walk()}
        self._present = {id(part) for part in parts_of(value)} if self._found else frozenset()
        self._given: set[int] = set()

    def of(self, value: object) -> Unknown | None:
        """Return the unknown fields of this object."""
        found = self._found.get(id(value))
        return found if found is not None and found.value is value else None

    def is_free(self, unknown: Unknown) -> bool:
        """Whether the object is no longer part of the value and its fields were not moved to another one."""
        return id(unknown.value) not in self._present and id(unknown) not in self._given

    def is_lost(self, unknown: Unknown) -> bool:
        """Whether unknown fields of the object, or of a nested one, are not placed yet."""
        return any(each.fields and self.is_free(each) for each in unknown.walk())

    def take(self, shape: _Shape, value: object, before: Unknown | None) -> Unknown | None:
        """Return the unknown fields of this object or, for a new one, of the object that it replaces."""
        found = self.of(value)
        if found is None and before is not None and before.shape is shape and self.is_free(before):
            self._given.add(id(before))
            return before
        return found


class _Shape:
    """A type with fields, or a container of such a type."""

    _first_bytes: frozenset[int] = _ARRAYS

    def fitting(self, raw: Raw) -> _Shape | None:
        """Return the shape of an encoded value: a member of a union, else this; None for another type."""
        return self if bytes(raw)[0] in self._first_bytes else None

    def find(self, value: object, raw: Raw) -> Unknown | None:
        """Return the unknown fields of `raw`, which was decoded as `value`, or None."""
        raise NotImplementedError

    def restore(self, value: object, raw: Raw, before: Unknown | None, restoring: _Restoring) -> Raw:
        """Return `raw`, the encoding of `value`, with the unknown fields. `before` are those found in the same place."""
        raise NotImplementedError


class ObjectShape(_Shape):
    """A struct, dataclass or TypedDict."""

    def __init__(self, kind: types.StructType | types.DataclassType | types.TypedDictType) -> None:
        self.below: dict[_Place, tuple[str, _Shape]] = {}
        """The fields whose types have fields: attribute name and type, by position."""
        self._tag: tuple[_Place, str | int] | None = None
        self._positional = self._tagged = False
        if isinstance(kind, types.StructType):
            self._positional = kind.array_like
            if kind.tag is not None and kind.tag_field is not None:
                self._tagged = True
                self._tag = (0 if kind.array_like else kind.tag_field), kind.tag
        if not self._positional:
            self._first_bytes = _MAPS
        self._first = int(self._positional and self._tagged)
        self._size = self._first + len(kind.fields)
        self._names: set[_Place] = {field.encode_name for field in kind.fields}
        if self._tag is not None:
            self._names.add(self._tag[0])

    def hold(self, kind: types.StructType | types.DataclassType | types.TypedDictType, shapes: _Shapes) -> None:
        """Set the fields to search; after creation, because a type may contain itself."""
        for index, field in enumerate(kind.fields, self._first):
            shape = _compile(field.type, shapes)
            if shape is not None:
                self.below[index if self._positional else field.encode_name] = field.name, shape

    def fitting(self, raw: Raw) -> _Shape | None:
        """See `_Shape`; for a tagged union only the type of that variant."""
        if bytes(raw)[0] not in self._first_bytes:
            return None
        if self._tag is not None:
            place, variant = self._tag
            parts = self._split(raw)
            if place not in parts or msgspec.msgpack.decode(parts[place]) != variant:
                return None
        return self

    def find(self, value: object, raw: Raw) -> Unknown | None:
        """See `_Shape`."""
        parts = self._split(raw)
        fields = [(str(place), part) for place, part in parts.items() if not self._knows(place)]
        below: dict[_Place, Unknown] = {}
        for place, (attribute, shape) in self.below.items():
            found = _find(shape, _attribute(value, attribute, place), parts.get(place))
            if found is not None:
                below[place] = found
        return Unknown(self, value, below, fields) if fields or below else None

    def restore(self, value: object, raw: Raw, before: Unknown | None, restoring: _Restoring) -> Raw:
        """See `_Shape`."""
        found = restoring.take(self, value, before)
        parts = self._split(raw)
        for place, (attribute, shape) in self.below.items():
            if place in parts:
                held, old = _attribute(value, attribute, place), found.below.get(place) if found else None
                parts[place] = _restore(shape, held, parts[place], old, restoring)
        if self._positional:
            tail = [part for _, part in found.fields] if found is not None and len(parts) == self._size else []
            return Raw(_encode([*parts.values(), *tail]))
        for name, part in found.fields if found is not None else ():
            parts.setdefault(name, part)
        return Raw(_encode(parts))

    def _split(self, raw: Raw) -> dict[_Place, Raw]:
        return dict(enumerate(_split_array(raw))) if self._positional else _split_map(raw)

    def _knows(self, place: _Place) -> bool:
        return place < self._size if self._positional else place in self._names


class _ListShape(_Shape):
    """A list, or a tuple of any length, whose elements may move."""

    def __init__(self, item: _Shape) -> None:
        self._item = item

    def find(self, value: object, raw: Raw) -> Unknown | None:
        raws = _split_array(raw)
        below: dict[_Place, Unknown] = {}
        for index, (held, part) in enumerate(zip(_elements(value, len(raws)), raws, strict=True)):
            found = _find(self._item, held, part)
            if found is not None:
                below[index] = found
        return Unknown(self, value, below, size=len(raws)) if below else None

    def restore(self, value: object, raw: Raw, before: Unknown | None, restoring: _Restoring) -> Raw:
        found = restoring.take(self, value, before)
        raws = _split_array(raw)
        values = _elements(value, len(raws))
        places = self._places(values, raws, found, restoring) if found is not None else [None] * len(raws)
        return Raw(_encode([_restore(self._item, *each, restoring) for each in zip(values, raws, places, strict=True)]))

    def _places(self, values: Sequence[object], raws: list[Raw], found: Unknown, restoring: _Restoring) -> list[Unknown | None]:
        """Return, for each element, the unknown fields of the one that it replaces. Raises `AmbiguousElementError`."""
        places: list[Unknown | None] = [None] * len(raws)
        free = {index: unknown for index, unknown in found.below.items() if restoring.is_lost(unknown)}
        shapes = {
            index: shape
            for index, (value, raw) in enumerate(zip(values, raws, strict=True))
            if restoring.of(value) is None and (shape := self._item.fitting(raw)) is not None
        }
        for index, shape in tuple(shapes.items()):
            for old, unknown in free.items():
                if unknown.shape is shape and _encoding_now(unknown) == bytes(raws[index]):
                    places[index] = free.pop(old)
                    del shapes[index]
                    break
        if len(raws) == found.size:
            for index, shape in tuple(shapes.items()):
                if index in free and free[index].shape is shape:
                    places[index] = free.pop(index)
                    del shapes[index]
        if any(unknown.shape is shape for unknown in free.values() for shape in shapes.values()):
            raise AmbiguousElementError
        return places


class _TupleShape(_Shape):
    """A tuple with a type for each index."""

    def __init__(self, items: dict[int, _Shape]) -> None:
        self._items = items

    def find(self, value: object, raw: Raw) -> Unknown | None:
        raws = _split_array(raw)
        values = _elements(value, len(raws))
        below: dict[_Place, Unknown] = {}
        for index, shape in self._items.items():
            if index < len(raws) and (found := _find(shape, values[index], raws[index])) is not None:
                below[index] = found
        return Unknown(self, value, below, size=len(raws)) if below else None

    def restore(self, value: object, raw: Raw, before: Unknown | None, restoring: _Restoring) -> Raw:
        found = restoring.take(self, value, before)
        raws = _split_array(raw)
        values = _elements(value, len(raws))
        for index, shape in self._items.items():
            if index < len(raws):
                old = found.below.get(index) if found is not None else None
                raws[index] = _restore(shape, values[index], raws[index], old, restoring)
        return Raw(_encode(raws))


class _SetShape(_Shape):
    """A set, sorted so that equal sets have one encoding in every process."""

    def find(self, value: object, raw: Raw) -> Unknown | None:
        del value, raw
        return None

    def restore(self, value: object, raw: Raw, before: Unknown | None, restoring: _Restoring) -> Raw:
        del value, before, restoring
        return Raw(_encode([Raw(part) for part in sorted(map(bytes, _split_array(raw)))]))


class _DictShape(_Shape):
    """A dict, whose values are matched by key."""

    _first_bytes = _MAPS

    def __init__(self, item: _Shape) -> None:
        self._item = item

    def find(self, value: object, raw: Raw) -> Unknown | None:
        parts = _split_map(raw)
        below: dict[_Place, Unknown] = {}
        for (key, part), held in zip(parts.items(), _values(value, len(parts)), strict=True):
            found = _find(self._item, held, part)
            if found is not None:
                below[key] = found
        return Unknown(self, value, below) if below else None

    def restore(self, value: object, raw: Raw, before: Unknown | None, restoring: _Restoring) -> Raw:
        found = restoring.take(self, value, before)
        parts = _split_map(raw)
        for (key, part), held in zip(tuple(parts.items()), _values(value, len(parts)), strict=True):
            parts[key] = _restore(self._item, held, part, found.below.get(key) if found is not None else None, restoring)
        return Raw(_encode(parts))


class _UnionShape(_Shape):
    """One of several types."""

    def __init__(self, choices: list[_Shape]) -> None:
        self._choices = choices

    def fitting(self, raw: Raw) -> _Shape | None:
        return next((shape for choice in self._choices if (shape := choice.fitting(raw)) is not None), None)


_Shapes: TypeAlias = dict[Any, ObjectShape]


def shape_of(data_type: type[msgspec.Struct]) -> ObjectShape:
    """Return the shape of a type, or None if its values cannot have unknown fields."""
    shape = _compile(types.type_info(data_type), {})
    assert isinstance(shape, ObjectShape)  # noqa: S101 - a struct has fields
    return shape


def find_unknown(shape: ObjectShape, value: object, stored: bytes) -> Unknown | None:
    """Return the unknown fields in `stored`, which was decoded as `value`, or None."""
    return shape.find(value, Raw(stored))


def restore(shape: ObjectShape, value: object, encoded: bytes, before: Unknown | None = None) -> bytes:
    """Return the encoding of `value` with sorted sets and the unknown fields of its earlier form.

    Raises `AmbiguousElementError`.
    """
    return bytes(shape.restore(value, Raw(encoded), before, _Restoring(before, value)))


def restore_fields(
    shape: ObjectShape, value: object, encoded: dict[str, bytes], before: Unknown | None = None
) -> dict[str, bytes]:
    """Restore single fields of `value`, by their stored names. Raises `AmbiguousElementError` with the attribute's name."""
    restoring = _Restoring(before, value)
    restored = dict(encoded)
    for name, raw in encoded.items():
        if name in shape.below:
            attribute, held = shape.below[name]
            old = None if before is None else before.below.get(name)
            try:
                restored[name] = bytes(_restore(held, getattr(value, attribute), Raw(raw), old, restoring))
            except AmbiguousElementError as error:
                raise AmbiguousElementError(attribute) from error
    return restored


def _compile(kind: types.Type, shapes: _Shapes) -> _Shape | None:
    """Return the shape of a type, or None if nothing in it can have unknown fields."""
    shape: _Shape | None = None
    match kind:
        case types.Metadata():
            shape = _compile(kind.type, shapes)
        case types.StructType() | types.DataclassType() | types.TypedDictType():
            shape = shapes.get(kind.cls)
            if shape is None:
                shape = shapes[kind.cls] = ObjectShape(kind)
                shapes[kind.cls].hold(kind, shapes)
        case types.SetType() | types.FrozenSetType():
            shape = _SetShape()
        case types.ListType() | types.VarTupleType() if item := _compile(kind.item_type, shapes):
            shape = _ListShape(item)
        case types.DictType() if item := _compile(kind.value_type, shapes):
            shape = _DictShape(item)
        case types.TupleType() | types.NamedTupleType():
            kinds = kind.item_types if isinstance(kind, types.TupleType) else tuple(field.type for field in kind.fields)
            items = {index: item for index, each in enumerate(kinds) if (item := _compile(each, shapes)) is not None}
            shape = _TupleShape(items) if items else None
        case types.UnionType():
            choices = [choice for each in kind.types if (choice := _compile(each, shapes)) is not None]
            shape = _UnionShape(choices) if choices else None
    return shape


def _find(shape: _Shape, value: object, raw: Raw | None) -> Unknown | None:
    fitting = None if raw is None else shape.fitting(raw)
    return None if raw is None or fitting is None else fitting.find(value, raw)


def _restore(shape: _Shape, value: object, raw: Raw, before: Unknown | None, restoring: _Restoring) -> Raw:
    fitting = shape.fitting(raw)
    return raw if fitting is None else fitting.restore(value, raw, before, restoring)


def _attribute(value: object, attribute: str, place: _Place) -> object:
    # A TypedDict is a dict, and an assigned value may be of any type before it is checked.
    return value.get(place) if isinstance(value, Mapping) else getattr(value, attribute, None)


def _elements(value: object, size: int) -> Sequence[object]:
    return value if isinstance(value, list | tuple) and len(value) == size else [None] * size


def _values(value: object, size: int) -> Sequence[object]:
    return list(value.values()) if isinstance(value, Mapping) and len(value) == size else [None] * size


def _encoding_now(unknown: Unknown) -> bytes | None:
    try:
        return _encode(unknown.value)
    except Exception:  # noqa: BLE001 - it is not part of the data any more, and may hold anything
        return None
