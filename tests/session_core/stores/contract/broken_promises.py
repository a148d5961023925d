"""Stores that declare a missing capability but do not refuse its use."""

from __future__ import annotations

from collections.abc import AsyncIterator

from session_core.stores.base import StoreCapabilities, StoredSession
from session_core.stores.memory import MemoryStore
from tests.session_core.stores.contract.broken import found_by


@found_by("a_limit_is_kept_or_refused")
class AcceptsALimitWithoutAtomicWrites(MemoryStore):
    capabilities = StoreCapabilities(atomic=False, indexed=True, shared=True, durable=False, native_expiry=False)


@found_by("sessions_are_listed_or_it_is_refused")
class ListsNothing(MemoryStore):
    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=False, native_expiry=False, listable=False)

    async def scan(self) -> AsyncIterator[StoredSession]:
        for nothing in ():
            yield nothing
