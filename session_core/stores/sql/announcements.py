"""Announces the end of sessions over PostgreSQL's LISTEN and NOTIFY.

A notification is part of the transaction that deletes: it is sent when that commits, or not at all. Every role of the database
may listen, so it contains digests only. A pooler in transaction mode drops LISTEN; there, and on MySQL, the sessions of open
connections are polled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from session_core.stores.announcements import NAME_CHARS, announced_name
from session_core.stores.sql.statements import NOTIFY

if TYPE_CHECKING:
    from session_core.stores.sql.link import Link

__all__ = ("CHANNEL", "announce")

CHANNEL: Final = "session_core_ended"
_NAMES_AT_ONCE: Final = 7900 // (NAME_CHARS + 1)
"""A payload is shorter than 8000 bytes."""


async def announce(link: Link, keys: Sequence[str]) -> None:
    """Announce in the current transaction that these sessions have ended or were rotated."""
    if link.dialect != "postgresql" or not keys:
        return
    names = [announced_name(key.encode()) for key in keys]
    messages = [" ".join(names[start : start + _NAMES_AT_ONCE]) for start in range(0, len(names), _NAMES_AT_ONCE)]
    await link.rows(NOTIFY, {"names": messages})
