"""Which types session data may be made of: those whose encoding is the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import inspect as types

from session_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("decodes_alike", "encoding_order")

_EMPTY: Final = (msgspec.NODEFAULT, list, dict, set, bytearray)
_SORTABLE: Final = (types.StrType, types.IntType, types.FloatType, types.BytesType)


def encoding_order(data_type: type[msgspec.Struct]) -> Literal["deterministic"] | None:
    """Return the order in which the encoder must write collections of this data.

    A set comes out in another order in every process, and would look changed each time it is read; sorted, it does not. The
    encoder can sort only some types. Raises `ConfigurationError`, naming the type, where neither works.
    """
    sets = odd_keys = False
    for found in _walk(types.type_info(data_type), set()):
        if isinstance(found, types.SetType | types.FrozenSetType):
            sets = True
            if not isinstance(found.item_type, _SORTABLE):
                msg = f"{data_type.__name__}: a set may hold str, int, float or bytes only; use a list for other values"
                raise ConfigurationError(msg)
        elif isinstance(found, types.DictType):
            odd_keys = odd_keys or not isinstance(found.key_type, types.StrType)
    if sets and odd_keys:
        msg = f"{data_type.__name__}: sets and dicts whose keys are no str do not go together; use str keys, or lists"
        raise ConfigurationError(msg)
    return None if odd_keys else "deterministic"


def decodes_alike(data_type: type[msgspec.Struct]) -> bool:
    """Whether the same bytes always decode to the same data: no field is filled in by code that could give something else."""
    for found in _walk(types.type_info(data_type), set()):
        made = getattr(found, "cls", None)
        if hasattr(made, "__post_init__") or hasattr(made, "__attrs_post_init__"):
            return False
        if not all(_is_plain_default(field) for field in getattr(found, "fields", ())):
            return False
    return True


def _is_plain_default(field: types.Field) -> bool:
    # A default that can be changed is one object, shared by everything that is decoded without it.
    return field.default_factory in _EMPTY and type(field.default).__hash__ is not None


def _walk(found: types.Type, seen: set[type]) -> Iterator[types.Type]:
    yield found
    for child in _children(found, seen):
        yield from _walk(child, seen)


def _children(found: types.Type, seen: set[type]) -> tuple[types.Type, ...]:
    if isinstance(found, types.StructType | types.DataclassType | types.TypedDictType | types.NamedTupleType):
        if found.cls in seen:  # a type that holds itself
            return ()
        seen.add(found.cls)
        return tuple(field.type for field in found.fields)
    # Metadata, collections, dicts, unions and tuples name what they hold by one of these.
    children: list[types.Type] = []
    for name in ("type", "item_type", "key_type", "value_type", "types", "item_types"):
        held = getattr(found, name, ())
        children.extend(held if isinstance(held, tuple) else (held,))
    return tuple(child for child in children if isinstance(child, types.Type))
