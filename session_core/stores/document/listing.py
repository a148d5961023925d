"""Goes through all names of an engine: lists its sessions, and removes what has expired. Independent of what documents hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from session_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from session_core.clock import Clock
    from session_core.stores.base import StoreCapabilities, StoredSession

__all__ = ("Listed", "Sweeper", "scan")

_PAGE: Final = 50


class Listed(Protocol):
    """An engine that can list its names."""

    def names(self, kind: str) -> AsyncIterator[str]:
        """Iterate over the names of a kind, without the kind."""
        ...


async def scan(
    documents: Listed, capabilities: StoreCapabilities, load: Callable[[list[str]], Awaitable[list[StoredSession]]]
) -> AsyncIterator[StoredSession]:
    """See `SessionStore.scan`. `load` returns the live sessions of a page of keys.

    Raises `ConfigurationError` where names cannot be listed.
    """
    if not capabilities.listable:
        msg = "this session store cannot list its sessions; those of one user can be found"
        raise ConfigurationError(msg)
    page: list[str] = []
    async for key in documents.names("s"):
        page.append(key)
        if len(page) == _PAGE:
            for stored in await load(page):
                yield stored
            page = []
    for stored in await load(page):
        yield stored


class Sweeper:
    """Sweeps documents of these `kinds` in batches, some of them `uncounted`; several processes may sweep at once.

    `remove_if_over` removes a document that has ended and returns None, or returns when to read it again (Unix milliseconds).
    """

    def __init__(
        self,
        documents: Listed,
        clock: Clock,
        remove_if_over: Callable[[str], Awaitable[int | None]],
        *,
        kinds: Iterable[str],
        uncounted: str,
    ) -> None:
        self._names = documents.names
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
