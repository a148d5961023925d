"""Stores with one bug each, as people write them; each names the tests of the contract that must find it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession
from session_core.stores.memory import MemoryStore

FOUND_BY: dict[type[MemoryStore], tuple[str, ...]] = {}
"""Which tests find which bug."""


def found_by(*tests: str) -> Callable[[type[MemoryStore]], type[MemoryStore]]:
    def register(store: type[MemoryStore]) -> type[MemoryStore]:
        FOUND_BY[store] = tests
        return store

    return register


def changed(entry: Entry, **fields: Any) -> Entry:
    import msgspec

    return msgspec.structs.replace(entry, **fields)


# One record on its own


@found_by("load_of_an_unknown_key_is_none")
class AdoptsUnknownKeys(MemoryStore):
    async def load(self, key: str) -> StoredSession | None:
        return self._live(key) or StoredSession(key, 1, Entry(b"", self._clock.now() + 1000))


@found_by("create_stores_everything_at_version_1")
class ForgetsTheRank(MemoryStore):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        return await super().create(key, changed(entry, rank=0), limit=limit)


@found_by("create_without_indexes")
class MakesNobodyAUser(MemoryStore):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        return await super().create(key, changed(entry, user=entry.user or ""), limit=limit)


@found_by("data_is_opaque")
class StoresText(MemoryStore):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        text = entry.data.decode(errors="replace")
        return await super().create(key, changed(entry, data=text.encode()), limit=limit)


@found_by("keys_are_case_sensitive")
class IgnoresCase(MemoryStore):
    async def load(self, key: str) -> StoredSession | None:
        return await super().load(key.lower())

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        return await super().create(key.lower(), entry, limit=limit)


@found_by("create_refuses_a_taken_key", "of_many_creates_of_one_key_one_wins")
class CreateOverwrites(MemoryStore):
    def _refuse_taken(self, key: str) -> None:
        self._drop(key)


@found_by("create_takes_the_place_of_an_expired_record")
class ExpiredKeysStayTaken(MemoryStore):
    def _refuse_taken(self, key: str) -> None:
        if key in self._records:
            raise SessionConflictError


@found_by("load_honours_the_expiry")
class LoadIgnoresExpiry(MemoryStore):
    async def load(self, key: str) -> StoredSession | None:
        return self._records.get(key)


@found_by("load_honours_the_expiry")
class ExpiresOneMillisecondLate(MemoryStore):
    def _live(self, key: str) -> StoredSession | None:
        stored = self._records.get(key)
        return stored if stored and stored.entry.expires_at >= self._clock.now() else None


@found_by("replace_overwrites_everything_and_counts", "no_acknowledged_write_is_lost")
class VersionsDoNotCount(MemoryStore):
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        await super().replace(key, entry, version=version)
        self._records[key] = StoredSession(key, version, entry)
        return version


@found_by("replace_refuses_another_version", "no_acknowledged_write_is_lost")
class LastWriteWins(MemoryStore):
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        await asyncio.sleep(0)
        stored = self._live(key)
        if stored is None:
            raise SessionGoneError
        return await super().replace(key, entry, version=stored.version)


@found_by("replace_refuses_another_version")
class AcceptsNewerVersions(MemoryStore):
    def _expect(self, key: str, version: int) -> None:
        stored = self._live(key)
        if stored is None:
            raise SessionGoneError
        if stored.version > version:
            raise SessionConflictError


@found_by("replace_never_brings_a_session_back", "the_end_of_a_session_wins")
class ReplaceIsAnUpsert(MemoryStore):
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        self._put(StoredSession(key, version + 1, entry))
        return version + 1


@found_by("replace_can_end_a_session")
class ReplaceKeepsTheLaterExpiry(MemoryStore):
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        stored = self._live(key)
        later = max(entry.expires_at, stored.entry.expires_at if stored else 0)
        return await super().replace(key, changed(entry, expires_at=later), version=version)


@found_by("touch_moves_the_expiry_only", "a_touch_takes_nothing_back")
class TouchCountsAsAWrite(MemoryStore):
    async def touch(self, key: str, expires_at: int) -> bool:
        stored = self._live(key)
        if stored is not None:
            self._records[key] = StoredSession(key, stored.version + 1, stored.entry)
        return await super().touch(key, expires_at)


@found_by("touch_never_shortens", "a_touch_takes_nothing_back")
class TouchShortens(MemoryStore):
    async def touch(self, key: str, expires_at: int) -> bool:
        stored = self._live(key)
        if stored is not None:
            self._put(StoredSession(key, stored.version, changed(stored.entry, expires_at=expires_at)))
        return stored is not None


@found_by("touch_never_revives")
class TouchRevives(MemoryStore):
    def _live(self, key: str) -> StoredSession | None:
        stored = self._records.get(key)
        return stored if stored and stored.entry.expires_at > self._clock.now() else None

    async def touch(self, key: str, expires_at: int) -> bool:
        stored = self._records.get(key)
        if stored is not None:
            self._put(StoredSession(key, stored.version, changed(stored.entry, expires_at=expires_at)))
        return stored is not None


# Moving to a new key, and the end


@found_by("rotate_moves_the_session", "rotate_moves_the_indexes", "exactly_one_key_is_live_at_every_instant")
class RotateLeavesTheOldKeyAlive(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, version: int, **rest: Any) -> tuple[str, ...]:
        old = self._live(old_key)
        evicted = await super().rotate(old_key, new_key, entry, version=version, **rest)
        assert old is not None
        self._put(old)
        return evicted


@found_by("rotate_starts_at_version_1_from_any_version")
class RotateContinuesTheVersion(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, version: int, **rest: Any) -> tuple[str, ...]:
        evicted = await super().rotate(old_key, new_key, entry, version=version, **rest)
        self._put(StoredSession(new_key, version, entry))
        return evicted


@found_by("rotate_moves_the_indexes", "delete_by_meets_a_rotated_session", "the_limit_applies_to_a_login_that_rotates")
class RotateForgetsTheIndexes(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, **rest: Any) -> tuple[str, ...]:
        return await super().rotate(old_key, new_key, changed(entry, user=None, op_session=None), **rest)


@found_by("rotate_can_change_the_user")
class RotateKeepsTheUser(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, **rest: Any) -> tuple[str, ...]:
        old = self._live(old_key)
        return await super().rotate(old_key, new_key, changed(entry, user=old and old.entry.user), **rest)


@found_by("rotate_refuses_another_version", "of_a_rotation_and_a_write_one_wins")
class RotateIgnoresTheVersion(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, version: int, **rest: Any) -> tuple[str, ...]:
        stored = self._live(old_key)
        return await super().rotate(old_key, new_key, entry, version=stored.version if stored else 1, **rest)


@found_by("rotate_never_brings_a_session_back", "of_several_rotations_one_wins", "the_end_of_a_session_wins")
class RotateIsACreate(MemoryStore):
    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        self._drop(old_key)
        return await self.create(new_key, entry, limit=limit)


@found_by("rotate_refuses_a_taken_key")
class RotateOverwrites(CreateOverwrites):
    pass


@found_by("delete_ends_a_session", "a_session_is_ended_by_one_call_only")
class DeleteReportsNothing(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        await super().delete(key)
        return ()


@found_by("delete_is_idempotent")
class DeleteOfNothingFails(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        if key not in self._records and key not in self._successors:
            raise SessionGoneError
        return await super().delete(key)


@found_by("delete_does_not_report_an_expired_record")
class DeleteReportsExpired(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        there = key in self._records
        return await super().delete(key) or ((key,) if there else ())


@found_by("a_deleted_key_is_free_again")
class DeletedKeysStayTaken(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        self._successors[key] = (key, self._clock.now() + 1)
        return await super().delete(key)

    def _drop(self, key: str) -> None:
        super()._drop(key)
        self._ended = {*getattr(self, "_ended", ()), key}

    def _refuse_taken(self, key: str) -> None:
        if key in getattr(self, "_ended", ()):
            raise SessionConflictError


@found_by(
    "delete_follows_the_successor", "delete_follows_all_successors", "delete_expired_removes_what_has_ended_only"
)
class RotateIsNotRemembered(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, **rest: Any) -> tuple[str, ...]:
        evicted = await super().rotate(old_key, new_key, entry, **rest)
        self._successors.clear()
        return evicted


@found_by("delete_follows_all_successors", "a_logout_ends_a_session_that_is_being_rotated_all_the_time")
class DeleteFollowsOneStep(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        follow = self._successors.get(key)
        ended = [each for each in (key, follow and follow[0]) if each and self._live(each)]
        for each in ended:
            self._drop(each)
        return tuple(ended)


@found_by("delete_follows_only_forward")
class DeleteReportsWholeChains(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        deleted, next_key = [], key
        while next_key in self._successors:
            next_key = self._successors.pop(next_key)[0]
            deleted.append(next_key)
        return tuple(deleted) or await super().delete(key)


@found_by("delete_follows_only_while_it_is_remembered")
class DeleteFollowsForEver(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, successor_until: int, **rest: Any) -> tuple[str, ...]:
        return await super().rotate(old_key, new_key, entry, successor_until=2**60, **rest)


@found_by("a_remembered_key_serves_delete_alone", "rotate_moves_the_session")
class LoadFollowsSuccessors(MemoryStore):
    async def load(self, key: str) -> StoredSession | None:
        successor, until = self._successors.get(key, (key, 0))
        return self._live(successor if until > self._clock.now() else key)


# Indexes and the limit


@found_by("find_returns_the_sessions_of_a_user")
class FindsEverybody(MemoryStore):
    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        return [stored for key in list(self._records) if (stored := self._live(key))]


@found_by("find_returns_what_load_returns")
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


@found_by("find_leaves_out_what_has_ended")
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
class LimitEndsTheLowestWhoeverItIs(MemoryStore):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        await super().create(key, entry)
        return self._evict(entry, limit + 1) if limit else ()


@found_by("the_limit_leaves_room_unused", "a_rotation_does_not_count_twice", "simultaneous_logins_never_pass_the_limit")
class LimitIsOneTooLow(MemoryStore):
    def _evict(self, entry: Entry, limit: int) -> tuple[str, ...]:
        return super()._evict(entry, max(limit - 1, 1)) if limit else ()


@found_by("the_limit_does_not_count_what_has_ended")
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


@found_by("the_limit_applies_to_a_login_that_rotates", "simultaneous_logins_never_pass_the_limit")
class RotateKnowsNoLimit(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, limit: int = 0, **rest: Any) -> tuple[str, ...]:
        return await super().rotate(old_key, new_key, entry, **rest)


@found_by("a_rotation_does_not_count_twice")
class RotateCountsTwice(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, limit: int = 0, **rest: Any) -> tuple[str, ...]:
        evicted = self._evict(entry, limit)
        return evicted + await super().rotate(old_key, new_key, entry, **rest)


# Checks and acts with a pause between them


@found_by("of_many_creates_of_one_key_one_wins", "simultaneous_logins_never_pass_the_limit")
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


@found_by("the_end_of_a_session_wins", "a_touch_takes_nothing_back")
class TouchPausesAfterItsLook(MemoryStore):
    async def touch(self, key: str, expires_at: int) -> bool:
        stored = self._live(key)
        await asyncio.sleep(0)
        if stored is not None:
            later = max(expires_at, stored.entry.expires_at)
            self._put(StoredSession(key, stored.version, changed(stored.entry, expires_at=later)))
        return stored is not None


@found_by(
    "exactly_one_key_is_live_at_every_instant", "the_end_of_a_session_wins", "a_cancelled_request_harms_nobody"
)
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


@found_by("a_logout_ends_a_session_that_is_being_rotated_all_the_time")
class DeletePausesOnTheWay(MemoryStore):
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
class DeleteByPausesAfterItsLook(MemoryStore):
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


# Claims, sweeping, opening and closing


@found_by("a_name_is_claimed_once", "of_many_claims_one_wins", "claims_and_sessions_are_apart")
class ClaimsAreFree(MemoryStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        self._claims[name] = expires_at
        return True


@found_by("a_claim_ends", "of_many_claims_one_wins")
class ClaimsAreForEver(MemoryStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        if name in self._claims:
            return False
        return await super().claim(name, expires_at)


@found_by("claims_and_sessions_are_apart")
class ClaimsTakeKeys(MemoryStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        return name not in self._records and await super().claim(name, expires_at)


@found_by("delete_expired_removes_what_has_ended_only", "several_sweepers_share_the_work")
class SweepsTooMuch(MemoryStore):
    async def delete_expired(self, limit: int = 1000) -> int:
        count = len(self._records)
        self._records.clear()
        return count


@found_by("delete_expired_removes_what_has_ended_only")
class SweepsLiveClaims(MemoryStore):
    async def delete_expired(self, limit: int = 1000) -> int:
        removed = await super().delete_expired(limit)
        self._claims.clear()
        return removed


@found_by("delete_expired_forgets_successors")
class NeverForgetsSuccessors(MemoryStore):
    async def delete_expired(self, limit: int = 1000) -> int:
        successors, self._successors = self._successors, {}
        removed = await super().delete_expired(limit)
        self._successors = successors
        return removed


@found_by("delete_expired_works_in_batches")
class SweepsWithoutALimit(MemoryStore):
    async def delete_expired(self, limit: int = 1000) -> int:
        return await super().delete_expired()


@found_by("several_sweepers_share_the_work")
class SweepPausesAfterItsLook(MemoryStore):
    async def delete_expired(self, limit: int = 1000) -> int:
        dead = [key for key, stored in self._records.items() if stored.entry.expires_at <= self._clock.now()][:limit]
        await asyncio.sleep(0)
        for key in dead:
            self._drop(key)
        return len(dead)


@found_by("scan_gives_the_live_records")
class ScansTheExpired(MemoryStore):
    async def scan(self) -> AsyncIterator[StoredSession]:
        for stored in list(self._records.values()):
            yield stored


@found_by("scan_bears_changes")
class ScanBreaks(MemoryStore):
    async def scan(self) -> AsyncIterator[StoredSession]:
        for key, stored in self._records.items():
            if self._records[key].entry.expires_at > self._clock.now():
                yield stored


@found_by("ping_answers")
class PingLeavesARecord(MemoryStore):
    async def ping(self) -> None:
        await self.create("ping", Entry(b"", self._clock.now() + 1000))


@found_by("close_is_idempotent")
class ClosesOnce(MemoryStore):
    async def close(self) -> None:
        del self.closable

    closable = True


@found_by("durable_sessions_survive_reopening")
class DurableInNameOnly(MemoryStore):
    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=False, durable=True, native_expiry=False)

    async def close(self) -> None:
        self._records.clear()


@found_by("a_cancelled_request_harms_nobody")
class LeaksAConnectionPerCancellation(MemoryStore):
    free = 2

    async def load(self, key: str) -> StoredSession | None:
        while self.free == 0:
            await asyncio.sleep(0)
        self.free -= 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.free += 1
        return await super().load(key)
