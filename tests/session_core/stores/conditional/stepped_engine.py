"""Conditional writes to a dictionary shared by simulated processes; a test chooses the next step and kills processes."""

from __future__ import annotations

from itertools import count

from session_core.clock import Clock
from session_core.stores.base import StoreCapabilities
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.store import ConditionalStore
from session_core.testing import FakeClock
from tests.session_core.stores.turns import SteppedView, Turns

CAPABILITIES = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=False)


class SteppedEngine(SteppedView[Versioned]):
    """See `SteppedView`."""

    _versions = count()
    """Of all engines: a dictionary may be filled by another one."""

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        del seconds
        await self._turns.take(self._process)
        return self._write(name, Versioned(value, next(self._versions)), version)

    async def delete(self, name: str, *, version: object) -> bool:
        await self._turns.take(self._process)
        return self._write(name, None, version)

    def _write(self, name: str, value: Versioned | None, version: object | None) -> bool:
        there = self._values.get(name)
        if (None if there is None else there.version) != version:
            return False
        if value is None:
            del self._values[name]
        else:
            self._values[name] = value
        return True


def processes(
    number: int, clock: Clock | None = None, kind: type[SteppedEngine] = SteppedEngine
) -> tuple[list[ConditionalStore], Turns, dict[str, Versioned]]:
    """Stores of several processes on one engine."""
    values: dict[str, Versioned] = {}
    turns = Turns()
    clock = clock or FakeClock()
    return [ConditionalStore(kind(values, turns, number), CAPABILITIES, clock=clock) for number in range(number)], turns, values
