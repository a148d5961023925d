"""What a store may offer beside the contract, so that open connections learn soon that their session has ended.

Both are optional. Without `SessionTracing` sessions are loaded one by one, and what a session was rotated to is not known;
without `RevocationFeed` they are looked at again and again.

A feed says where to look, never what is so: a message that is lost, repeated or forged cannot end a session nor keep one. Only
the store says whether a session is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from session_core.stores.base import SessionStore

__all__ = ("NAME_CHARS", "Heard", "RevocationFeed", "SessionTracing", "Trace", "announced_name", "trace")

NAME_CHARS: Final = 20
"""Of an announced name: 80 bits of a digest. Two sessions that met in one name would cost one look more."""
_LOADS_AT_ONCE: Final = 16

Heard: TypeAlias = Callable[[Sequence[str] | None], None]
"""Called with the names that were announced; with None when the channel has been opened: what was said before is lost."""


class Trace(msgspec.Struct, frozen=True):
    """What is known of a session key: the session lives until `expires_at`, or was rotated to `successor`."""

    expires_at: int
    successor: str | None = None


@runtime_checkable
class SessionTracing(Protocol):
    """A store that can say of many sessions at once what became of them."""

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """Return what is known of each key, for those that are live or remembered as rotated.

        Newest state, past every cache. Raises `StoreUnavailableError`.
        """
        ...


@runtime_checkable
class RevocationFeed(Protocol):
    """A store that announces what ended or was rotated, in the same atomic step: a killed process owes no announcement."""

    @property
    def pushes(self) -> bool:
        """Whether it does so on the servers that it was opened for."""
        ...

    def announced_name(self, key: str) -> str:
        """Return the name under which the end of a session is announced: a digest of its key."""
        ...

    async def listen(self, heard: Heard, *, patience: float) -> None:
        """Call `heard` with what is announced by any process, until the channel breaks.

        A channel that is silent for `patience` seconds is asked whether it is still there, and must answer within as many. Raises
        `StoreUnavailableError` when it does not, or cannot be opened.
        """
        ...


def announced_name(key: bytes) -> str:
    """Return the name of a session by what the store calls it."""
    return sha1(key, usedforsecurity=False).hexdigest()[:NAME_CHARS]


async def trace(store: SessionStore, keys: Collection[str]) -> Mapping[str, Trace]:
    """Return what `SessionTracing.trace` returns, of any store."""
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
