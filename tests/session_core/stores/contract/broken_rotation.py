"""Stores with a bug in rotating or ending a session."""

from __future__ import annotations

from typing import Any

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import Entry, StoredSession
from session_core.stores.memory import MemoryStore
from tests.session_core.stores.contract.broken import changed, found_by
from tests.session_core.stores.contract.broken_records import CreateOverwrites


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


@found_by("rotate_moves_the_indexes", "delete_by_ends_a_rotated_session", "the_limit_applies_to_a_login_that_rotates")
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


@found_by("rotate_never_revives_a_session", "of_several_rotations_one_wins", "the_end_of_a_session_wins")
class RotateIsACreate(MemoryStore):
    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        self._drop(old_key)
        return await self.create(new_key, entry, limit=limit)


@found_by("rotate_refuses_a_taken_key")
class RotateOverwrites(CreateOverwrites):
    pass


@found_by("rotate_replaces_an_expired_record")
class RotateSparesAnExpiredRecord(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, **rest: Any) -> tuple[str, ...]:
        if new_key in self._records:
            raise SessionConflictError
        return await super().rotate(old_key, new_key, entry, **rest)


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


@found_by("delete_follows_the_successor", "delete_follows_all_successors", "delete_expired_removes_expired_records_only")
class RotateIsNotRemembered(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, **rest: Any) -> tuple[str, ...]:
        evicted = await super().rotate(old_key, new_key, entry, **rest)
        self._successors.clear()
        return evicted


@found_by("delete_follows_all_successors", "a_logout_ends_a_session_under_continuous_rotation")
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
class DeleteFollowsExpiredRotations(MemoryStore):
    async def rotate(self, old_key: str, new_key: str, entry: Entry, *, successor_until: int, **rest: Any) -> tuple[str, ...]:
        return await super().rotate(old_key, new_key, entry, successor_until=2**60, **rest)


@found_by("a_remembered_key_is_used_by_delete_only", "rotate_moves_the_session")
class LoadFollowsSuccessors(MemoryStore):
    async def load(self, key: str) -> StoredSession | None:
        successor, until = self._successors.get(key, (key, 0))
        return self._live(successor if until > self._clock.now() else key)
