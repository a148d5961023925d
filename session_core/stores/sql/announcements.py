"""Announces the end of sessions over PostgreSQL's LISTEN and NOTIFY.

A notification is part of the transaction that deletes: it is sent when that commits, or not at all. Every role of the database
may listen, so it contains digests only. A pooler in transaction mode drops LISTEN; there, and on MySQL, the sessions of open
connections are polled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from session_core.stores.announcements import NAME_CHARS

__all__ = ("CHANNEL", "notify")

CHANNEL: Final = "session_core_ended"
_NAMES_AT_ONCE: Final = 7900 // (NAME_CHARS + 1)
"""A payload is shorter than 8000 bytes."""


def notify(names: Sequence[str]) -> str:
    """Return the statements that send these announced names, which are hexadecimal digits."""
    parts = [" ".join(names[start : start + _NAMES_AT_ONCE]) for start in range(0, len(names), _NAMES_AT_ONCE)]
    return "".join(f"NOTIFY {CHANNEL}, '{part}'; " for part in parts)
