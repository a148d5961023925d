"""Documents in a dictionary shared by simulated processes; a test chooses the next step and kills processes."""

from __future__ import annotations

from session_core.stores.base import StoreCapabilities
from session_core.stores.document.store import DocumentStore
from session_core.testing import FakeClock
from tests.session_core.stores.turns import SteppedView, Turns

CAPABILITIES = StoreCapabilities(atomic=False, indexed=True, shared=True, durable=True, native_expiry=False)


class SteppedDocuments(SteppedView[bytes]):
    """See `SteppedView`."""

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        await self._turns.take(self._process)
        self._values[name] = value

    async def delete(self, name: str) -> None:
        await self._turns.take(self._process)
        self._values.pop(name, None)


def processes(
    number: int, clock: FakeClock, kind: type[DocumentStore] = DocumentStore
) -> tuple[list[DocumentStore], Turns, dict[str, bytes]]:
    """Stores of several processes on one shared dictionary."""
    values: dict[str, bytes] = {}
    turns = Turns()
    return [kind(SteppedDocuments(values, turns, process), CAPABILITIES, clock=clock) for process in range(number)], turns, values
