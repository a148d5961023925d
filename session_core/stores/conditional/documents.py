"""The interface of an engine with conditional writes, independent of sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

__all__ = ("ConditionalDocuments", "Versioned")


class Versioned(NamedTuple):
    """A value as it was read. No two writes of one name have the same version, also where the value was deleted in between."""

    value: bytes
    version: object


class ConditionalDocuments(Protocol):
    """Values by name. A name is a kind, a colon, and one word of letters, digits, `-` and `_`, at most 100 characters.

    A condition and its write are one atomic step of the engine, for all its clients, and `get` returns what was written last.
    Any exception means that nothing is known of the outcome. Calls are cancelled at their deadline, and what was not sent by then
    must not be sent any more; so a driver neither queues nor repeats a write.
    """

    async def open(self) -> None:
        """Connect, and create what is missing. Raises `ConfigurationError` for an engine whose settings break the promises."""
        ...

    async def close(self) -> None:
        """Release connections. Calling it twice, or without `open`, is no error."""
        ...

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        """Return the values, None for an absent one."""
        ...

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        """Write where the version is `version`, or with None where there is nothing; return whether that was so.

        The value may leave by itself after so many seconds.
        """
        ...

    async def delete(self, name: str, *, version: object) -> bool:
        """Remove the value of this version; return whether it was there."""
        ...

    def names(self, kind: str) -> AsyncIterator[str]:
        """Iterate over the names of a kind, without the kind. Only for a driver that can."""
        ...
