"""Optional store features that report ended sessions to open connections quickly.

Without `SessionTracing` sessions are loaded one by one, and successors of a rotation are unknown; without `RevocationFeed`
sessions are polled.

Messages of a feed are only hints: a lost, repeated or forged message cannot end or keep a session. Only the store decides whether
a session exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from session_core.stores.base import SessionStore

__all__ = ("NAME_CHARS", "Heard", "RevocationFeed", "SessionTracing", "Trace", "announced_name", "trace")

NAME_CHARS: Final = 20
"""The length of an announced name: 80 bits of a digest. A collision would only cost one more lookup."""
_LOADS_AT_ONCE: Final = 16

Heard: TypeAlias = Callable[[Sequence[str] | None], None]
"""Called with the announced names, and with None when the channel is opened: earlier announcements are lost."""


class Trace(msgspec.Struct, frozen=True):
    """The state of a session key: live until `expires_at`, or rotated to `successor`."""

    expires_at: int
    successor: str | None = None


@runtime_checkable
class SessionTracing(Protocol):
    """A store that returns the state of many sessions at once."""

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """Return the state of each key that is live or has a successor.

        Bypasses every cache. Raises `StoreUnavailableError`.
        """
        ...


@runtime_checkable
class RevocationFeed(Protocol):
    """A store that announces ended and rotated sessions in the same atomic step, so that a killed process misses none."""

    @property
    def pushes(self) -> bool:
        """Whether the opened servers support announcements."""
        ...

    def announced_name(self, key: str) -> str:
        """Return the name under which the end of a session is announced: a digest of its key."""
        ...

    async def listen(self, heard: Heard, *, patience: float) -> None:
        """Call `heard` with the announcements of all processes, until the channel breaks.

        A channel that is silent for `patience` seconds is probed, and must answer within the same time. Raises
        `StoreUnavailableError` if it does not, or cannot be opened.
        """
        ...


def announced_name(key: bytes) -> str:
    """Return the announced name of a session."""
    return sha1(key, usedforsecurity=False).hexdigest()[:NAME_CHARS]


async def trace(store: SessionStore, keys: Collection[str]) -> Mapping[str, Trace]:
    """Return what `SessionTracing.trace` returns, for any store."""
    if isinstance(store, SessionTracing):
        return await store.trace(list(keys))
    traces: dict[str, Trace] = {}
    rest = iter(keys)

    async def load_some() -> None:
        for key in rest:
            stored = await store.load(key)
            if stored is not None:
                traces[key] = Trace(stored.entry.expires_at)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_LOADS_AT_ONCE, len(keys))):
            group.create_task(load_some())
    return traces
