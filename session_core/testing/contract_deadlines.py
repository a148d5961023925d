"""The store contract, part six: what has not taken effect by the deadline of its step never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic
from typing import Final

import pytest

from session_core.errors import StoreUnavailableError
from session_core.stores.base import SessionIndex, SessionStore, StoredSession
from session_core.stores.deadlines import Step
from session_core.testing.clock import FakeClock
from session_core.testing.contract_base import HOUR, ContractBase

__all__ = ("DeadlinesContract",)

_STEPS: Final = ("create", "replace", "rotate", "touch", "delete", "delete_by_user", "delete_by_op_session", "claim")
_TURNS: Final = 20
"""Turns of the event loop in which a refused step must not take effect."""


class DeadlinesContract(ContractBase):
    """`step_deadline`: the caller has been answered 503 by then, and may have tried again."""

    step_seconds = 0.2
    """How long a step may take while the store is stalled."""
    watch_seconds = 0.0
    """For how long the records are watched after a stall. An engine may run its queued commands some time later."""

    def stalled(self, store: SessionStore) -> AbstractAsyncContextManager[None]:
        """Override this one if possible: an asynchronous context in which the engine accepts commands and answers none."""
        del store
        return nullcontext()

    @pytest.mark.parametrize("step", _STEPS)
    async def test_a_step_whose_deadline_has_passed_is_refused(self, store: SessionStore, clock: FakeClock, step: str) -> None:
        """It raises `StoreUnavailableError` and has no effect, not even later."""
        await self._begin(store, clock)
        before = await self._picture(store)
        with Step(until=monotonic()), pytest.raises(StoreUnavailableError):
            await self._step(store, clock, step)
        assert await self._picture(store) == before
        await self._settled(store)
        assert await self._picture(store) == before

    @pytest.mark.parametrize("step", _STEPS)
    async def test_a_late_step_is_never_applied(self, store: SessionStore, clock: FakeClock, step: str) -> None:
        """The caller gives up at the deadline; after it the step changes nothing more."""
        await self._begin(store, clock)
        before = await self._picture(store)
        async with self.stalled(store):
            made = await self._gives_up(self._step(store, clock, step))
        if not made and not store.capabilities.keeps_deadlines:
            pytest.skip("the store says that it keeps no deadlines")
        first = await self._picture(store)
        if made:
            assert first != before
        elif type(self).stalled is not DeadlinesContract.stalled:
            assert first == before, "what was sent to a stalled engine was made after its deadline"
        await self._settled(store)
        assert await self._picture(store) == first

    async def _begin(self, store: SessionStore, clock: FakeClock) -> None:
        await store.create(self.key("a"), self.entry(clock, b"a", user="u", op_session="o"))

    def _step(self, store: SessionStore, clock: FakeClock, step: str) -> Coroutine[object, object, object]:
        key, entry, later = self.key("a"), self.entry(clock, b"changed", user="u", op_session="o"), clock.now() + HOUR
        new = self.key("b", after=key)
        calls: dict[str, Callable[[], Coroutine[object, object, object]]] = {
            "create": lambda: store.create(self.key("new"), entry),
            "replace": lambda: store.replace(key, entry, version=1),
            "rotate": lambda: store.rotate(key, new, entry, version=1, successor_until=later),
            "touch": lambda: store.touch(key, later + HOUR),
            "delete": lambda: store.delete(key),
            "delete_by_user": lambda: store.delete_by(SessionIndex(user="u")),
            "delete_by_op_session": lambda: store.delete_by(SessionIndex(op_session="o")),
            "claim": lambda: store.claim("name", later),
        }
        return calls[step]()

    async def _gives_up(self, step: Coroutine[object, object, object]) -> bool:
        """Call as `GuardedStore` does, which cancels a call at its deadline; return whether the step was made."""
        try:
            with Step(until=monotonic() + self.step_seconds):
                async with asyncio.timeout(self.step_seconds):
                    await step
        except (TimeoutError, StoreUnavailableError):
            return False
        return True

    async def _settled(self, store: SessionStore) -> None:
        """Wait for steps that are still in progress."""
        until = monotonic() + self.watch_seconds
        while True:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            await store.ping()
            if monotonic() >= until:
                return
            await asyncio.sleep(self.watch_seconds / 10)

    async def _picture(self, store: SessionStore) -> list[object]:
        """Return everything that a step could have changed."""
        keys = (self.key("a"), self.key("b", after=self.key("a")), self.key("new"))
        loaded: list[StoredSession | None] = [await store.load(key) for key in keys]
        indexes = (SessionIndex(user="u"), SessionIndex(op_session="o"))
        found = [sorted(stored.key for stored in await store.find(index)) for index in indexes]
        return [*loaded, *found, await store.claimed_until("name")]
