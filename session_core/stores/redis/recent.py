"""Remembers what the last records said: most requests of a session find it as the one before has read or written it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_core.recent import Recent
from session_core.stores.base import StoredSession
from session_core.stores.redis.layout import decode_record

if TYPE_CHECKING:
    from session_core.stores.base import Entry

__all__ = ("RecentRecords",)


class RecentRecords:
    """Decodes records as `decode_record` does, the same bytes of one session only once.

    What is known is used only where the server has just given the same value, to the last byte: it can be neither old nor wrong.
    """

    def __init__(self) -> None:
        self._recent: Recent[tuple[bytes, StoredSession]] = Recent()

    def decode(self, key: str, value: bytes | None, now: int) -> StoredSession | None:
        """See `decode_record`."""
        known = self._recent.get(key)
        if known is not None and known[0] == value:
            stored = known[1]
            return stored if stored.entry.expires_at > now else None
        read = decode_record(key, value, now)
        if read is not None and value is not None:
            self._recent.put(key, (value, read), len(value))
        return read

    def wrote(self, key: str, value: bytes, version: int, entry: Entry) -> None:
        """Remember what this process has made of a session."""
        self._recent.put(key, (value, StoredSession(key, version, entry)), len(value))
