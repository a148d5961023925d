"""Stores with one bug each, as people write them: how they say which tests of the contract must find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from session_core.stores.base import Entry
from session_core.stores.memory import MemoryStore

FOUND_BY: dict[type[MemoryStore], tuple[str, ...]] = {}
"""Which tests find which bug; filled by the modules beside this one."""


def found_by(*tests: str) -> Callable[[type[MemoryStore]], type[MemoryStore]]:
    """Register a broken store."""

    def register(store: type[MemoryStore]) -> type[MemoryStore]:
        FOUND_BY[store] = tests
        return store

    return register


def changed(entry: Entry, **fields: Any) -> Entry:
    """Return the entry with other values."""
    return msgspec.structs.replace(entry, **fields)
