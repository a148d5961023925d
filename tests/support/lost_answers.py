"""A store whose answers can be lost, and whose steps can be made later than they were answered."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal, TypeAlias

from session_core.clock import Clock
from session_core.errors import StoreUnavailableError
from session_core.stores.memory import MemoryStore

__all__ = ("Fault", "LosingStore")

_STEPS = ("load", "create", "replace", "rotate", "touch", "delete", "find", "delete_by", "claim", "claimed_until")

Fault: TypeAlias = Literal["applied", "not applied", "applied later", "refused"]
"""What became of a step whose caller got no answer. `refused`: the caller knows that it was not made."""


class LosingStore:
    """`fail(name, fault)`: what happens to the next call of that name. Everything after it fails until `recover` is called."""

    def __init__(self, *, clock: Clock) -> None:
        self.inner = MemoryStore(clock=clock)
        self.faults: dict[str, list[Fault | None]] = {}
        self.down = False
        self.calls: list[str] = []
        self._later: list[Coroutine[Any, Any, object]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in _STEPS:
            return method

        async def call(*args: Any, **kwargs: Any) -> object:
            return await self._answer(name, partial(method, *args, **kwargs))

        return call

    def fail(self, name: str, fault: Fault, *, after: int = 0) -> None:
        """Let the call of this name fail, after so many that do not."""
        self.faults[name] = [*[None] * after, fault]

    def recover(self) -> None:
        """Answer again."""
        self.down = False

    async def apply_what_is_late(self) -> None:
        """Make the steps that were answered with an error and are still under way; each as its store would: by its conditions."""
        for step in self._later:
            try:
                await step
            except Exception:  # noqa: BLE001 - there is no caller any more
                continue
        self._later = []

    async def _answer(self, name: str, step: Callable[[], Coroutine[Any, Any, object]]) -> object:
        self.calls.append(name)
        if self.down:
            raise StoreUnavailableError(not_applied=True)
        fault = self.faults[name].pop(0) if self.faults.get(name) else None
        if fault is None:
            return await step()
        self.down = True
        if fault == "applied":
            await step()
        elif fault == "applied later":
            self._later.append(step())
        raise StoreUnavailableError(not_applied=fault == "refused")
