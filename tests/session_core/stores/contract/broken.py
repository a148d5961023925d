"""Stores with one typical bug each, which name the contract tests that must detect it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from session_core.stores.base import Entry
from session_core.stores.memory import MemoryStore

FOUND_BY: dict[type[MemoryStore], tuple[str, ...]] = {}
"""The tests that must detect each bug. The other modules of this folder fill this mapping."""


def found_by(*tests: str) -> Callable[[type[MemoryStore]], type[MemoryStore]]:
    """Register a broken store."""

    def register(store: type[MemoryStore]) -> type[MemoryStore]:
        FOUND_BY[store] = tests
        return store

    return register


def changed(entry: Entry, **fields: Any) -> Entry:
    """Return the entry with changed values."""
    return msgspec.structs.replace(entry, **fields)
