"""Stores that apply a change after its deadline, when 503 was already returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry, StoredSession
from session_core.stores.deadlines import Step, step_deadline
from session_core.stores.memory import MemoryStore
from tests.session_core.stores.contract.broken import found_by


@found_by("a_step_whose_deadline_has_passed_is_refused")
class IgnoresTheDeadline(MemoryStore):
    async def rotate(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        with Step(until=monotonic() + 60):
            return await super().rotate(*args, **kwargs)


@found_by("a_step_whose_deadline_has_passed_is_refused")
class RaisesNowAppliesLater(MemoryStore):
    async def delete(self, key: str) -> tuple[str, ...]:
        try:
            return await super().delete(key)
        except StoreUnavailableError:
            asyncio.get_running_loop().call_soon(self._drop, key)
            raise


class ContinuesAfterItsCaller(MemoryStore):
    """Applies the change a few turns of the event loop after its caller was cancelled at the deadline."""

    async def late(self, change: Callable[[], object]) -> None:
        async def work() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            change()

        try:
            await asyncio.Event().wait()
        finally:
            self.task = asyncio.create_task(work())


@found_by("a_late_step_is_never_applied")
class ClaimsAfterItsCaller(ContinuesAfterItsCaller):
    async def claim(self, name: str, expires_at: int) -> bool:
        await self.late(lambda: self._claims.update({name: expires_at}))
        return True


@found_by("a_late_step_is_never_applied")
class CreatesAfterItsCaller(ContinuesAfterItsCaller):
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        if step_deadline() is None:
            return await super().create(key, entry, limit=limit)
        await self.late(lambda: self._put(StoredSession(key, 1, entry)))
        return ()
