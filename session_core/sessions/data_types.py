"""Checks the types of session data: no objects shared between sessions, and one encoding for equal values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import inspect as types

from session_core.errors import ConfigurationError

__all__ = ("SetOrder", "check_data_type", "check_factory", "decodes_alike", "holds_objects", "parts_of", "set_order")

_EMPTY: Final = (msgspec.NODEFAULT, list, dict, set, bytearray)
_SORTABLE: Final = (types.StrType, types.IntType, types.FloatType, types.BytesType)
_IMMUTABLE: Final = (
    type(None), bool, int, float, complex, str, bytes, dt.date, dt.time, dt.timedelta, dt.tzinfo,
    decimal.Decimal, UUID, enum.Enum, msgspec.UnsetType, msgspec.Raw,
)  # fmt: skip
"""A `datetime` is a `date`."""
_Object: TypeAlias = types.StructType | types.DataclassType | types.TypedDictType | types.NamedTupleType
_OBJECTS: Final = (types.StructType, types.DataclassType, types.TypedDictType, types.NamedTupleType)
SetOrder: TypeAlias = Literal["none", "native", "sorted"]


def check_data_type(data_type: type[msgspec.Struct]) -> None:
    """Refuse what cannot be session data, at any depth. Raises `ConfigurationError` naming the struct and the field."""
    for found in _walk(types.type_info(data_type), set()):
        if isinstance(found, _OBJECTS):
            _check_object(found)
        elif isinstance(found, types.SetType | types.FrozenSetType):
            if any(isinstance(part, _OBJECTS) for part in _walk(found.item_type, set())):
                msg = f"{data_type.__name__}: a set cannot hold structs; use a list, or a dict by their key"
                raise ConfigurationError(msg)
        elif isinstance(found, types.DictType) and any(
            isinstance(part, (*_OBJECTS, types.FrozenSetType)) for part in _walk(found.key_type, set())
        ):
            msg = f"{data_type.__name__}: the key of a dict cannot be a struct or a set; use a text or a number"
            raise ConfigurationError(msg)


def check_factory(factory: Callable[[], object], name: str) -> None:
    """Refuse a factory that returns the same mutable object twice: sessions would share it. Raises `ConfigurationError`.

    Raises what `factory` raises.
    """
    first, second = factory(), factory()
    kept = {id(part) for part in parts_of(first) if not _is_immutable(part)}
    if any(id(part) in kept or _is_opaque(part) for part in parts_of(second)):
        msg = f"{name} returns the same mutable object for every session; create a new one each time, nested ones included"
        raise ConfigurationError(msg)


def set_order(data_type: type[msgspec.Struct]) -> SetOrder:
    """Return how sets in this data are sorted.

    Sets have another order in every process and would look changed after each read. `native`: the encoder sorts them. It would
    also sort dicts, whose order is part of their value: with both, sets are `sorted` afterwards.
    """
    sets = native = False
    for found in _walk(types.type_info(data_type), set()):
        if isinstance(found, types.SetType | types.FrozenSetType):
            native = isinstance(found.item_type, _SORTABLE) and (native or not sets)
            sets = True
    if not sets:
        return "none"
    dicts = any(
        isinstance(found, types.DictType | types.TypedDictType | types.AnyType | types.CustomType)
        for found in _walk(types.type_info(data_type), set())
    )
    return "native" if native and not dicts else "sorted"


def holds_objects(data_type: type[msgspec.Struct]) -> bool:
    """Whether a value in this data has fields."""
    kinds = (types.StructType, types.DataclassType, types.TypedDictType)
    return sum(isinstance(found, kinds) for found in _walk(types.type_info(data_type), set())) > 1


def decodes_alike(data_type: type[msgspec.Struct]) -> bool:
    """Whether the same bytes always decode to the same data: no default is made by code that may return another value."""
    for found in _walk(types.type_info(data_type), set()):
        made = getattr(found, "cls", None)
        if hasattr(made, "__post_init__") or hasattr(made, "__attrs_post_init__"):
            return False
        if any(field.default_factory not in _EMPTY for field in getattr(found, "fields", ())):
            return False
    return True


def parts_of(value: object) -> Iterator[object]:
    """Iterate over a value and all nested values."""
    yield value
    for part in _held_by(value):
        yield from parts_of(part)


def _held_by(value: object) -> Iterable[object]:
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return [getattr(value, field.name, None) for field in getattr(type(value), "__attrs_attrs__", ())]


def _check_object(found: _Object) -> None:
    name = getattr(found.cls, "__name__", repr(found.cls))
    if isinstance(found, types.StructType) and found.forbid_unknown_fields:
        msg = (
            f"{name} has forbid_unknown_fields: while two versions of the application run beside each other, the older one could "
            "not read what the newer one writes; remove it"
        )
        raise ConfigurationError(msg)
    for field in found.fields:
        if field.default is not msgspec.NODEFAULT and not _is_immutable(field.default):
            msg = (
                f"the default of {name}.{field.name} is mutable and would be shared by all sessions; "
                "use msgspec.field(default_factory=...), which makes a new one for each"
            )
            raise ConfigurationError(msg)
        if field.default_factory not in _EMPTY:
            check_factory(field.default_factory, f"the default_factory of {name}.{field.name}")
    if hasattr(found.cls, "__post_init__") and not any(field.required for field in found.fields):
        check_factory(found.cls, f"{name}.__post_init__")


def _is_immutable(value: object) -> bool:
    """Whether the value and all nested values are immutable."""
    if isinstance(value, _IMMUTABLE):
        return True
    if isinstance(value, msgspec.Struct):
        fixed = value.__struct_config__.frozen
    elif dataclasses.is_dataclass(value):
        fixed = getattr(type(value), "__dataclass_params__").frozen  # noqa: B009 - not in the type stubs
    else:
        fixed = isinstance(value, tuple | frozenset)
    return fixed and all(_is_immutable(part) for part in _held_by(value))


def _is_opaque(value: object) -> bool:
    """Whether it may refer to a hidden object, as a view of a dict does."""
    known = isinstance(value, (*_IMMUTABLE, msgspec.Struct, dict, list, tuple, set, frozenset, bytearray))
    return not known and not dataclasses.is_dataclass(value) and not hasattr(type(value), "__attrs_attrs__")


def _walk(found: types.Type, seen: set[object]) -> Iterator[types.Type]:
    yield found
    for child in _children(found, seen):
        yield from _walk(child, seen)


def _children(found: types.Type, seen: set[object]) -> tuple[types.Type, ...]:
    if isinstance(found, _OBJECTS):
        if found.cls in seen:  # a type that holds itself
            return ()
        seen.add(found.cls)
        return tuple(field.type for field in found.fields)
    # The attributes under which metadata, collections, dicts, unions and tuples have their item types.
    children: list[types.Type] = []
    for name in ("type", "item_type", "key_type", "value_type", "types", "item_types"):
        held = getattr(found, name, ())
        children.extend(held if isinstance(held, tuple) else (held,))
    return tuple(child for child in children if isinstance(child, types.Type))
