"""Stores with a bug in an index or in the limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from session_core.stores.base import Entry, SessionIndex, StoredSession
from session_core.stores.memory import MemoryStore
from tests.session_core.stores.contract.broken import changed, found_by


@found_by("find_returns_the_sessions_of_a_user")
class FindsEveryUser(MemoryStore):
    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        return [stored for key in list(self._records) if (stored := self._live(key))]


@found_by("find_returns_the_same_as_load")
class FindsOldCopies(MemoryStore):
    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        copies = self.__dict__.setdefault("copies", {})
        return [copies.get(stored.key, stored) for stored in await super().find(index)]

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        self.__dict__.setdefault("copies", {})[key] = StoredSession(key, 1, entry)
        return await super().create(key, entry, limit=limit)


@found_by("find_returns_the_sessions_of_an_op_session", "delete_by_op_session", "rotate_moves_the_indexes")
class OneIndexForBoth(MemoryStore):
    def _indexed(self, index: SessionIndex) -> list[str]:
        value = index.user or index.op_session or ""
        return list(self._by_user.get(value, ()))


@found_by("find_follows_a_change_of_index", "replace_overwrites_everything_and_counts")
class ReplaceKeepsTheIndexes(MemoryStore):
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        old = self._live(key)
        if old:
            entry = changed(entry, user=old.entry.user, op_session=old.entry.op_session)
        return await super().replace(key, entry, version=version)


@found_by("find_omits_ended_sessions")
class FindIsStale(MemoryStore):
    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        return [self._records[key] for key in self._indexed(index)]


@found_by("delete_by_user", "delete_by_op_session", "a_session_is_ended_by_one_call_only")
class DeleteByMissesOne(MemoryStore):
    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        found = [stored.key for stored in await self.find(index)]
        return await super().delete_by(index, keep=keep or max(found, default=None))


@found_by("delete_by_keeps_one")
class DeleteByKeepsNone(MemoryStore):
    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        return await super().delete_by(index)


@found_by("delete_by_does_not_report_expired_records")
class DeleteByReportsExpired(MemoryStore):
    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        there = self._indexed(index)
        await super().delete_by(index, keep=keep)
        return tuple(key for key in there if key != keep)


@found_by("the_limit_ends_the_lowest_rank", "the_limit_applies_to_a_login_that_rotates")
class LimitEndsTheNewest(MemoryStore):
    def _evict(self, entry: Entry, limit: int) -> tuple[str, ...]:
        if limit <= 0 or entry.user is None:
            return ()
        alive = [stored for key in self._by_user[entry.user] if (stored := self._records[key])]
        alive.sort(key=lambda stored: -stored.entry.rank)
        evicted = tuple(stored.key for stored in alive[: max(len(alive) - limit + 1, 0)])
        for key in evicted:
            self._drop(key)
        return evicted


@found_by("the_limit_keeps_the_new_session")
class LimitEndsTheLowestKeyOfAnyUser(MemoryStore):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        await super().create(key, entry)
        return self._evict(entry, limit + 1) if limit else ()


@found_by("the_limit_leaves_room_unused", "a_rotation_does_not_count_twice", "simultaneous_logins_never_exceed_the_limit")
class LimitIsOneTooLow(MemoryStore):
    def _evict(self, entry: Entry, limit: int) -> tuple[str, ...]:
        return super()._evict(entry, max(limit - 1, 1)) if limit else ()


@found_by("the_limit_does_not_count_ended_sessions")
class LimitCountsTheExpired(MemoryStore):
    def _live(self, key: str) -> StoredSession | None:
        stored = self._records.get(key)
        return stored if stored and stored.entry.expires_at > self._clock.now() else None

    def _evict(self, entry: Entry, limit: int) -> tuple[str, ...]:
        if limit <= 0 or entry.user is None:
            return ()
        alive = sorted((self._records[key] for key in self._by_user[entry.user]), key=lambda stored: stored.entry.rank)
        evicted = tuple(stored.key for stored in alive[: max(len(alive) - limit + 1, 0)])
        for key in evicted:
            self._drop(key)
        return evicted


@found_by("the_limit_applies_to_a_login_that_rotates", "simultaneous_logins_never_exceed_the_limit")
class RotateIgnoresTheLimit(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, limit: int = 0, **rest: Any) -> tuple[str, ...]:
        return await super().rotate(old_key, new_key, entry, **rest)


@found_by("a_rotation_does_not_count_twice")
class RotateCountsTwice(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, limit: int = 0, **rest: Any) -> tuple[str, ...]:
        evicted = self._evict(entry, limit)
        return evicted + await super().rotate(old_key, new_key, entry, **rest)
