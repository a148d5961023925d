"""Stores with a bug in operations on one record."""

from __future__ import annotations

import asyncio

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import Entry, StoredSession
from session_core.stores.memory import MemoryStore
from tests.session_core.stores.contract.broken import changed, found_by


@found_by("load_of_an_unknown_key_is_none")
class AdoptsUnknownKeys(MemoryStore):
    async def load(self, key: str) -> StoredSession | None:
        return self._live(key) or StoredSession(key, 1, Entry(b"", self._clock.now() + 1000))


@found_by("create_stores_everything_at_version_1")
class ForgetsTheRank(MemoryStore):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        return await super().create(key, changed(entry, rank=0), limit=limit)


@found_by("create_without_indexes")
class MakesNoIdentityAUser(MemoryStore):
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


@found_by("create_replaces_an_expired_record")
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


@found_by("replace_never_revives_a_session", "the_end_of_a_session_wins")
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


@found_by("touch_moves_the_expiry_only", "a_touch_never_reverts_a_concurrent_write")
class TouchCountsAsAWrite(MemoryStore):
    async def touch(self, key: str, expires_at: int) -> bool:
        stored = self._live(key)
        if stored is not None:
            self._records[key] = StoredSession(key, stored.version + 1, stored.entry)
        return await super().touch(key, expires_at)


@found_by("touch_never_shortens", "a_touch_never_reverts_a_concurrent_write")
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
