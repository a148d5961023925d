"""Limits the audit entries of visitors: repetitions of one address within a minute are counted. Independent of databases.

A client without a login can cause some events in any number: a callback with an invented state, an invalid logout token. The
first one is kept; the repetitions of a minute become one entry with their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from session_core.urls import network_of

if TYPE_CHECKING:
    from app.data.audit import AuditEntry

__all__ = ("Repeats",)

_MINUTE_MS: Final = 60_000
_MOST: Final = 30
"""Distinct entries in a minute; further ones are only counted by event, because an attacker may have many addresses."""
_Key: TypeAlias = tuple[str, str | None, str | None]


class Repeats:
    """The entries without a user of the current minute."""

    def __init__(self) -> None:
        self._minute = 0
        self._first: dict[_Key, AuditEntry] = {}
        self._repeated: dict[_Key, AuditEntry] = {}
        """All after the first."""

    def admit(self, entry: AuditEntry, now: int) -> list[AuditEntry]:
        """Return the entries to write at once: the repetitions of the last minute, and this entry if it is the first."""
        due = self.due(now)
        key = (entry.event, entry.reason, entry.ip and network_of(entry.ip))
        if key not in self._first and len(self._first) >= _MOST:
            key = (entry.event, None, None)
            entry = msgspec.structs.replace(entry, reason=None, ip=None)
        if key not in self._first:
            self._first[key] = entry
            return [*due, entry]
        before = self._repeated.get(key)
        count = 1 if before is None else before.count + 1
        earlier = before or self._first[key]
        # Session and client are kept only if all repetitions have the same.
        session = entry.session if entry.session == earlier.session else None
        agent = entry.user_agent if entry.user_agent == earlier.user_agent else None
        self._repeated[key] = msgspec.structs.replace(entry, count=count, session=session, user_agent=agent, detail=None)
        return due

    def due(self, now: int) -> list[AuditEntry]:
        """Return the repetitions of a finished minute."""
        minute = now // _MINUTE_MS
        return [] if minute == self._minute else self.take(minute)

    def take(self, minute: int | None = None) -> list[AuditEntry]:
        """Return all remaining repetitions, and start again."""
        taken = list(self._repeated.values())
        self._first, self._repeated = {}, {}
        if minute is not None:
            self._minute = minute
        return taken
