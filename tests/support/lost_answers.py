"""A store whose responses can be lost, and whose steps can be applied after an error was returned."""

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
"""The fate of a step whose caller got no response. `refused`: the caller knows that it was not applied."""


class LosingStore:
    """`fail(name, fault)` sets the fault of the next call of that name. All later calls fail until `recover`."""

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
        """Let the call of this name fail after `after` successful ones."""
        self.faults[name] = [*[None] * after, fault]

    def recover(self) -> None:
        """Respond again."""
        self.down = False

    async def apply_what_is_late(self) -> None:
        """Apply the steps that returned an error and are still pending, each under the store's conditions."""
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
