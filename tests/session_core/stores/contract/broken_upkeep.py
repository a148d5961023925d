"""Stores with a bug in claims, sweeping, opening or closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from session_core.stores.base import Entry, StoreCapabilities, StoredSession
from session_core.stores.memory import MemoryStore
from tests.session_core.stores.contract.broken import found_by


@found_by("a_name_is_claimed_once", "of_many_claims_one_wins", "claims_and_sessions_are_separate")
class ClaimsAreAlwaysGranted(MemoryStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        self._claims[name] = expires_at
        return True


@found_by("a_claim_ends", "of_many_claims_one_wins")
class ClaimsNeverExpire(MemoryStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        if name in self._claims:
            return False
        return await super().claim(name, expires_at)


@found_by("claims_and_sessions_are_separate")
class ClaimsTakeKeys(MemoryStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        return name not in self._records and await super().claim(name, expires_at)


@found_by("delete_expired_removes_expired_records_only", "several_sweepers_share_the_work")
class SweepsTooMuch(MemoryStore):
    async def delete_expired(self, limit: int = 1000) -> int:
        count = len(self._records)
        self._records.clear()
        return count


@found_by("delete_expired_removes_expired_records_only")
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
class SweepPausesAfterItsSearch(MemoryStore):
    async def delete_expired(self, limit: int = 1000) -> int:
        dead = [key for key, stored in self._records.items() if stored.entry.expires_at <= self._clock.now()][:limit]
        await asyncio.sleep(0)
        for key in dead:
            self._drop(key)
        return len(dead)


@found_by("scan_yields_the_live_records")
class ScansTheExpired(MemoryStore):
    async def scan(self) -> AsyncIterator[StoredSession]:
        for stored in list(self._records.values()):
            yield stored


@found_by("scan_tolerates_changes")
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
class DeclaresDurabilityFalsely(MemoryStore):
    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=False, durable=True, native_expiry=False)

    async def close(self) -> None:
        self._records.clear()


@found_by("a_cancelled_request_harms_no_other_request")
class LeaksAConnectionPerCancellation(MemoryStore):
    free = 2

    async def load(self, key: str) -> StoredSession | None:
        while self.free == 0:  # noqa: ASYNC110 - forever
            await asyncio.sleep(0)
        self.free -= 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.free += 1
        return await super().load(key)
