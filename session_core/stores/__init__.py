"""Where sessions are kept: the contract, the stores, and how one is opened by its URL."""

from __future__ import annotations

from session_core.stores.base import Entry, SessionIndex, SessionStore, StoreCapabilities, StoredSession
from session_core.stores.deadlines import check_deadline, remaining, step_deadline
from session_core.stores.memory import MemoryStore
from session_core.stores.opening import open_store

__all__ = (
    "Entry",
    "MemoryStore",
    "SessionIndex",
    "SessionStore",
    "StoreCapabilities",
    "StoredSession",
    "check_deadline",
    "open_store",
    "remaining",
    "step_deadline",
)
