"""Stores that check, pause, and then act on outdated state."""

from __future__ import annotations

import asyncio

from session_core.stores.base import Entry, SessionIndex, StoredSession
from session_core.stores.memory import MemoryStore
from tests.session_core.stores.contract.broken import changed, found_by


@found_by("of_many_creates_of_one_key_one_wins", "simultaneous_logins_never_exceed_the_limit")
class CreatePausesAfterItsChecks(MemoryStore):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        self._refuse_taken(key)
        evicted = self._evict(entry, limit)
        await asyncio.sleep(0)
        self._put(StoredSession(key, 1, entry))
        return evicted


@found_by("no_acknowledged_write_is_lost", "the_end_of_a_session_wins", "of_a_rotation_and_a_write_one_wins")
class ReplacePausesAfterItsCheck(MemoryStore):
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        self._expect(key, version)
        await asyncio.sleep(0)
        self._put(StoredSession(key, version + 1, entry))
        return version + 1


@found_by("the_end_of_a_session_wins", "a_touch_never_reverts_a_concurrent_write")
class TouchPausesAfterItsCheck(MemoryStore):
    async def touch(self, key: str, expires_at: int) -> bool:
        stored = self._live(key)
        await asyncio.sleep(0)
        if stored is not None:
            later = max(expires_at, stored.entry.expires_at)
            self._put(StoredSession(key, stored.version, changed(stored.entry, expires_at=later)))
        return stored is not None


@found_by("exactly_one_key_is_live_at_every_instant", "the_end_of_a_session_wins", "a_cancelled_request_harms_no_other_request")
class RotateEndsTheOldFirst(MemoryStore):
    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        self._expect(old_key, version)
        self._refuse_taken(new_key)
        self._drop(old_key)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._successors[old_key] = (new_key, successor_until)
        evicted = self._evict(entry, limit)
        self._put(StoredSession(new_key, 1, entry))
        return evicted


@found_by("exactly_one_key_is_live_at_every_instant", "of_several_rotations_one_wins", "of_a_rotation_and_a_write_one_wins")
class RotateBeginsTheNewFirst(MemoryStore):
    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        self._expect(old_key, version)
        self._refuse_taken(new_key)
        evicted = self._evict(entry, limit)
        self._put(StoredSession(new_key, 1, entry))
        await asyncio.sleep(0)
        self._drop(old_key)
        self._successors[old_key] = (new_key, successor_until)
        return evicted


@found_by("a_logout_ends_a_session_under_continuous_rotation")
class DeletePausesBetweenItsSteps(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        chain = [key]
        while chain[-1] in self._successors:
            chain.append(self._successors[chain[-1]][0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        alive = tuple(each for each in chain if self._live(each))
        for each in chain:
            self._drop(each)
        return alive


@found_by("the_end_of_a_session_wins", "a_session_is_ended_by_one_call_only")
class DeleteByPausesAfterItsSearch(MemoryStore):
    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        keys = tuple(stored.key for stored in await self.find(index) if stored.key != keep)
        await asyncio.sleep(0)
        for key in keys:
            self._drop(key)
        return keys


@found_by("of_many_claims_one_wins")
class ClaimPausesAfterItsCheck(MemoryStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        taken = await self.claimed_until(name) is not None
        await asyncio.sleep(0)
        self._claims[name] = expires_at
        return not taken
