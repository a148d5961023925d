"""Documents in a dictionary shared by simulated processes; a test chooses the next step and kills processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from session_core.stores.base import StoreCapabilities
from session_core.stores.document.store import DocumentStore
from session_core.testing import FakeClock
from tests.session_core.stores.turns import Turns

CAPABILITIES = StoreCapabilities(atomic=False, indexed=True, shared=True, durable=True, native_expiry=False)


class SteppedDocuments:
    """The view of one process on the shared dictionary: each name is read or written in a separate step."""

    def __init__(self, values: dict[str, bytes], turns: Turns, process: int) -> None:
        self._values = values
        self._turns = turns
        self._process = process

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        found = []
        for name in names:
            await self._turns.take(self._process)
            found.append(self._values.get(name))
        return found

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        await self._turns.take(self._process)
        self._values[name] = value

    async def delete(self, name: str) -> None:
        await self._turns.take(self._process)
        self._values.pop(name, None)

    async def names(self, kind: str) -> AsyncIterator[str]:
        for name in [name for name in self._values if name[0] == kind]:
            yield name[2:]


def processes(
    number: int, clock: FakeClock, kind: type[DocumentStore] = DocumentStore
) -> tuple[list[DocumentStore], Turns, dict[str, bytes]]:
    """Stores of several processes on one shared dictionary."""
    values: dict[str, bytes] = {}
    turns = Turns()
    return [kind(SteppedDocuments(values, turns, process), CAPABILITIES, clock=clock) for process in range(number)], turns, values
