"""A model of the session lifecycle in memory, compared with the lifecycle on a real store."""

from __future__ import annotations

from dataclasses import dataclass, field

from session_core import Identity
from session_core.sessions.timeouts import Timeouts

LIMIT = 3
SUCCESSOR_MS = 360_000
MARK_MS = 21 * 60_000


@dataclass
class Expected:
    """One session id and its expected state."""

    visits: int
    note: str
    identity: Identity | None
    absolute: int
    expires: int
    version: int = 1
    rank: int = 0
    ended: bool = False
    successor: tuple[str, int] | None = None


@dataclass
class Model:
    """All sessions ever created, by id."""

    timeouts: Timeouts
    sessions: dict[str, Expected] = field(default_factory=dict)
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By index key: the number and the time of the last end by the OP."""
    ends: int = 0

    def live(self, session_id: str | None, now: int) -> Expected | None:
        found = self.sessions.get(session_id or "")
        return found if found is not None and not found.ended and found.expires > now else None

    def of_user(self, user_key: str, now: int) -> dict[str, Expected]:
        return {
            session_id: each
            for session_id, each in self.sessions.items()
            if self.live(session_id, now) and each.identity is not None and each.identity.user_key == user_key
        }

    def begin(self, session_id: str, visits: int, note: str, identity: Identity | None, now: int) -> None:
        assert session_id not in self.sessions, "an id was given twice"
        absolute = self.timeouts.absolute_expiry(now)
        expires = self.timeouts.expiry(now, absolute)
        self.sessions[session_id] = Expected(visits, note, identity, absolute, expires, rank=now if identity else 0)
        if identity is not None:
            others = self.of_user(identity.user_key, now)
            del others[session_id]
            for each in sorted(others.values(), key=lambda each: each.rank)[: max(len(others) - LIMIT + 1, 0)]:
                each.ended = True

    def write(self, each: Expected, now: int) -> None:
        each.version += 1
        self.use(each, now)

    def use(self, each: Expected, now: int) -> None:
        if self.timeouts.touch_due(now, each.expires, each.absolute):
            each.expires = self.timeouts.expiry(now, each.absolute)

    def retire(self, session_id: str, successor: str, now: int) -> None:
        self.sessions[session_id].ended = True
        self.sessions[session_id].successor = successor, now + SUCCESSOR_MS

    def end(self, session_id: str, now: int) -> None:
        """A logout, which also ends the successor of a recent rotation."""
        following: str | None = session_id
        while following is not None and following in self.sessions:
            each = self.sessions[following]
            each.ended = True
            following = each.successor[0] if each.successor and each.successor[1] > now else None

    def mark(self, index_key: str, now: int) -> None:
        """The provider ends the sessions of an index key."""
        self.ends += 1
        self.marks[index_key] = self.ends, now

    def is_refused(self, identity: Identity, begun: int, now: int) -> bool:
        """Whether the provider has ended a login that started after this many ends."""
        marks = [self.marks.get(name) for name in filter(None, (identity.op_session_key, identity.user_key))]
        return any(mark is not None and mark[0] > begun and mark[1] + MARK_MS > now for mark in marks)
