"""Sessions in the memory of this process, for tests and demos."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from session_core.clock import Clock, SystemClock
from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.announcements import Trace
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession, keeps_time
from session_core.stores.deadlines import check_deadline

__all__ = ("MemoryStore",)

_AT_ONCE: Final = 1000
"""Sessions ended before others have their turn: a few milliseconds."""


class MemoryStore:
    """The contract in its plainest form. What one session is changed by runs without an await, hence atomically."""

    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=False, durable=False, native_expiry=False)
    keeps_within = 0.0

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._records: dict[str, StoredSession] = {}
        self._by_user: defaultdict[str, set[str]] = defaultdict(set)
        self._by_op_session: defaultdict[str, set[str]] = defaultdict(set)
        self._successors: dict[str, tuple[str, int]] = {}
        self._claims: dict[str, int] = {}

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Keep the records: an application that restarts its lifespan in one process keeps its sessions."""

    async def ping(self) -> None:
        """Return at once."""

    @keeps_time
    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        return self._live(key)

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        check_deadline()
        self._refuse_taken(key)
        evicted = self._evict(entry, limit)
        self._put(StoredSession(key, 1, entry))
        return evicted

    @keeps_time
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""
        check_deadline()
        self._expect(key, version)
        self._put(StoredSession(key, version + 1, entry))
        return version + 1

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        check_deadline()
        self._expect(old_key, version)
        self._refuse_taken(new_key)
        self._drop(old_key)
        evicted = self._evict(entry, limit)
        self._put(StoredSession(new_key, 1, entry))
        self._successors[old_key] = (new_key, successor_until)
        return evicted

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        check_deadline()
        stored = self._live(key)
        if stored is None:
            return False
        if expires_at > stored.entry.expires_at:
            entry = Entry(stored.entry.data, expires_at, stored.entry.user, stored.entry.op_session, stored.entry.rank)
            self._records[key] = StoredSession(key, stored.version, entry)
        return True

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""
        check_deadline()
        deleted: list[str] = []
        next_key: str | None = key
        while next_key is not None:
            if self._live(next_key) is not None:
                deleted.append(next_key)
            self._drop(next_key)
            successor, until = self._successors.pop(next_key, (None, 0))
            next_key = successor if until > self._clock.now() else None
        return tuple(deleted)

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`."""
        traces = {key: Trace(stored.entry.expires_at) for key in keys if (stored := self._live(key)) is not None}
        now = self._clock.now()
        for key in keys:
            successor, until = self._successors.get(key, (None, 0))
            if successor is not None and until > now:
                traces[key] = Trace(until, successor)
        return traces

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        records, now = self._records, self._clock.now()
        return [records[key] for key in self._indexed(index) if records[key].entry.expires_at > now]

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`. Others run between steps."""
        check_deadline()
        deleted: list[str] = []
        while some := [stored.key for stored in await self.find(index) if stored.key != keep][:_AT_ONCE]:
            for key in some:
                self._drop(key)
            deleted += some
            if len(some) == _AT_ONCE:
                await asyncio.sleep(0)
        return tuple(deleted)

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`."""
        now = self._clock.now()
        dead = [key for key, stored in self._records.items() if stored.entry.expires_at <= now][:limit]
        followed = [key for key, (_, until) in self._successors.items() if until <= now][: limit - len(dead)]
        claimed = [name for name, until in self._claims.items() if until <= now][: limit - len(dead) - len(followed)]
        for key in dead:
            self._drop(key)
        for key in followed:
            del self._successors[key]
        for name in claimed:
            del self._claims[name]
        return len(dead) + len(followed) + len(claimed)

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`."""
        for key in list(self._records):
            stored = self._live(key)
            if stored is not None:
                yield stored

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        check_deadline()
        if await self.claimed_until(name) is not None:
            return False
        self._claims[name] = expires_at
        return True

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        until = self._claims.get(name, 0)
        return until if until > self._clock.now() else None

    def _live(self, key: str) -> StoredSession | None:
        stored = self._records.get(key)
        if stored is None or stored.entry.expires_at > self._clock.now():
            return stored
        self._drop(key)
        return None

    def _expect(self, key: str, version: int) -> None:
        stored = self._live(key)
        if stored is None:
            raise SessionGoneError
        if stored.version != version:
            raise SessionConflictError

    def _refuse_taken(self, key: str) -> None:
        if self._live(key) is not None or self._successors.get(key, ("", 0))[1] > self._clock.now():
            msg = "the session key is taken"
            raise SessionConflictError(msg)

    def _evict(self, entry: Entry, limit: int) -> tuple[str, ...]:
        """Make room for one more session of the entry's user."""
        if limit <= 0 or entry.user is None:
            return ()
        alive = [stored for key in set(self._by_user.get(entry.user, ())) if (stored := self._live(key)) is not None]
        alive.sort(key=lambda stored: (stored.entry.rank, stored.key))
        evicted = tuple(stored.key for stored in alive[: max(len(alive) - limit + 1, 0)])
        for key in evicted:
            self._drop(key)
        return evicted

    def _put(self, stored: StoredSession) -> None:
        self._drop(stored.key)
        self._records[stored.key] = stored
        if stored.entry.user is not None:
            self._by_user[stored.entry.user].add(stored.key)
        if stored.entry.op_session is not None:
            self._by_op_session[stored.entry.op_session].add(stored.key)

    def _drop(self, key: str) -> None:
        stored = self._records.pop(key, None)
        if stored is None:
            return
        for keys, value in ((self._by_user, stored.entry.user), (self._by_op_session, stored.entry.op_session)):
            if value is not None:
                keys[value].discard(key)
                if not keys[value]:
                    del keys[value]

    def _indexed(self, index: SessionIndex) -> list[str]:
        if index.user is not None:
            return list(self._by_user.get(index.user, ()))
        return list(self._by_op_session.get(index.op_session or "", ()))
