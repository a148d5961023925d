"""The sessions that have open connections in this process: by key, by announced name, and by when they expire. Makes no call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final, Protocol

from session_core.sessions.snapshot import Snapshot, lineage_of

__all__ = ("Watched", "WatchedSession", "WatchedSessions")

_SPARE: Final = 500
"""Stale heap entries, beyond twice the live ones, at which the heap is rebuilt."""


class Watched(Protocol):
    """An open connection."""

    def end(self, reason: str) -> None:
        """Close: the session has ended (`ended`) or expired (`expired`). Returns at once; called at most once."""
        ...

    def follow(self, session: Snapshot) -> None:
        """Continue with the session under its new key."""
        ...


class WatchedSession:
    """A session with open connections."""

    __slots__ = ("connections", "expires_at", "key", "lineage")

    def __init__(self, key: str, lineage: object, expires_at: int) -> None:
        self.key = key
        self.lineage = lineage
        self.expires_at = expires_at
        self.connections: set[Watched] = set()


class WatchedSessions:
    """Every step takes constant time, except for a heap. `name_of` gives the name under which an end is announced."""

    def __init__(self, name_of: Callable[[str], str] | None) -> None:
        self._name_of = name_of
        self._sessions: dict[str, WatchedSession] = {}
        self._keys: dict[str, str] = {}
        self._expiring: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sessions)

    def __contains__(self, key: str) -> bool:
        return key in self._sessions

    def get(self, key: str) -> WatchedSession | None:
        """Return the session of a key."""
        return self._sessions.get(key)

    def key_of(self, name: str) -> str | None:
        """Return the key of the session that an announcement names."""
        return self._keys.get(name)

    def enter(self, snapshot: Snapshot) -> WatchedSession:
        """Return the session of a key, adding it if needed."""
        key = snapshot.key
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = WatchedSession(key, lineage_of(snapshot), snapshot.expires_at)
            heappush(self._expiring, (snapshot.expires_at, key))
            if self._name_of is not None:
                self._keys[self._name_of(key)] = key
        return session

    def leave(self, session: WatchedSession) -> None:
        """Remove a session; the caller handles its connections."""
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
            if self._name_of is not None:
                self._keys.pop(self._name_of(session.key), None)

    def expect(self, session: WatchedSession, expires_at: int) -> None:
        """Note when a session expires, according to the store."""
        if session.expires_at != expires_at:
            session.expires_at = expires_at
            heappush(self._expiring, (expires_at, session.key))

    def take_expiring(self, now: int) -> list[str]:
        """Return the sessions due to expire by `now` (Unix milliseconds), once each; the store may have extended them."""
        if len(self._expiring) > 2 * len(self._sessions) + _SPARE:
            self._expiring = sorted((session.expires_at, session.key) for session in self._sessions.values())
        keys: list[str] = []
        while self._expiring and self._expiring[0][0] <= now:
            expires_at, key = heappop(self._expiring)
            keys.append(key)
            session = self._sessions.get(key)
            if session is not None and session.expires_at == expires_at:
                session.expires_at = 0  # accept any expiry that the store gives next
        return keys
