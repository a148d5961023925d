"""Stores by the names of their documents: list all sessions, and remove what has expired. Independent of what documents hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, Protocol

from session_core.clock import Clock
from session_core.errors import ConfigurationError
from session_core.stores.base import StoreCapabilities, StoredSession
from session_core.stores.document.calls import CallsInFlight

__all__ = ("ListedStore", "Sweeper", "read_again_at")

_PAGE: Final = 50
_LATER_MS: Final = 3_600_000
"""When an unreadable document is read again; it is never removed, because it may be foreign."""


class _Engine(Protocol):
    async def close(self) -> None: ...

    def names(self, kind: str) -> AsyncIterator[str]:
        """Iterate over the names of a kind, without the kind."""
        ...


def read_again_at(until: int | None, now: int) -> int | None:
    """Return when a document that is good for so long must be read again; None if it has ended. `until`: None if unreadable."""
    if until is None:
        return now + _LATER_MS
    return until if until > now else None


class Sweeper:
    """Sweeps documents of these `kinds` in batches, some of them `uncounted`; several processes may sweep at once.

    `remove_if_over` removes a document that has ended and returns None, or returns when to read it again (Unix milliseconds).
    """

    def __init__(
        self,
        engine: _Engine,
        clock: Clock,
        remove_if_over: Callable[[str], Awaitable[int | None]],
        *,
        kinds: Iterable[str],
        uncounted: str,
    ) -> None:
        self._names = engine.names
        self._clock = clock
        self._remove_if_over = remove_if_over
        self._kinds = tuple(kinds)
        self._uncounted = uncounted
        self._due: dict[str, int] = {}
        """When a document must be read next (Unix milliseconds): expiries only move forward, so each is read about once."""

    async def sweep(self, limit: int) -> int:
        """Remove up to `limit` documents that have ended; return how many."""
        removed = 0
        for kind in self._kinds:
            seen: set[str] = set()
            async for rest in self._names(kind):
                name = f"{kind}:{rest}"
                seen.add(name)
                if self._due.get(name, 0) > self._clock.now():
                    continue
                if (due := await self._remove_if_over(name)) is not None:
                    self._due[name] = due
                    continue
                removed += kind not in self._uncounted
                if removed >= limit:
                    return removed
            for name in [name for name in self._due if name[0] == kind and name not in seen]:
                del self._due[name]
        return removed


class ListedStore:
    """The methods of `SessionStore` that are alike on all engines of documents by name. `sweeper` works on the same engine."""

    def __init__(self, engine: _Engine, capabilities: StoreCapabilities, sweeper: Sweeper) -> None:
        self.capabilities = capabilities
        self.calls = CallsInFlight()
        """Steps that run to their end, even when their caller stops waiting."""
        self._engine = engine
        self._sweeper = sweeper

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    async def close(self) -> None:
        """See `SessionStore.close`."""
        await self.calls.drain()
        await self._engine.close()

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`. Nothing is removed where names cannot be listed."""
        if self.capabilities.native_expiry or not self.capabilities.listable:
            return 0
        return await self._sweeper.sweep(limit)

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`. Raises `ConfigurationError` where names cannot be listed."""
        if not self.capabilities.listable:
            msg = "this session store cannot list its sessions; those of one user can be found"
            raise ConfigurationError(msg)
        page: list[str] = []
        async for key in self._engine.names("s"):
            page.append(key)
            if len(page) == _PAGE:
                for stored in await self._load_page(page):
                    yield stored
                page = []
        for stored in await self._load_page(page):
            yield stored

    async def _load_page(self, keys: list[str]) -> list[StoredSession]:
        """Return the live sessions of these keys."""
        raise NotImplementedError
