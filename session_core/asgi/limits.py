"""Rate limits per client, counted in the session store over all processes. Independent of routes and headers.

A window begins with the first request of a client and lasts `seconds`. Its count is one note in the store, changed by
compare-and-swap, so the limit is exact with any number of processes. A process remembers the version it wrote last: while a
client stays with one process, a request costs one store call, which the caller can run concurrently with others, and none once
the limit is reached. With `share` a process reserves that many at once and counts them itself: fewer calls, less exact.

An outage of the store is `StoreUnavailableError`: the limited requests need the same store anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from session_core.clock import Clock
from session_core.concurrency import back_off
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError, TooManyRequestsError
from session_core.events import Events
from session_core.recent import Recent
from session_core.sessions.notes import encode_note, note_key, read_note
from session_core.stores.base import Entry, SessionStore
from session_core.urls import ip_of, network_of

__all__ = ("RateLimits",)

_MAX_CLIENTS: Final = 4096
_MAX_ATTEMPTS: Final = 10


class _Window:
    """One client's window, as far as this process knows. `count` never exceeds the count in the store, which only grows."""

    __slots__ = ("allowed", "count", "ends_at", "turn", "version", "waiting")

    def __init__(self, ends_at: int) -> None:
        self.begin(ends_at)
        self.turn: asyncio.Future[StoreUnavailableError | None] | None = None
        self.waiting = 0

    def begin(self, ends_at: int) -> None:
        """Begin a new window."""
        self.ends_at = ends_at
        self.count = self.version = self.allowed = 0


class RateLimits:
    """The limits of one application. Clients in `exempt` have none."""

    def __init__(
        self, store: SessionStore, clock: Clock, events: Events, *, exempt: Sequence[IPv4Network | IPv6Network] = ()
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._exempt = tuple(exempt)
        self._windows: Recent[_Window] = Recent(limit=_MAX_CLIENTS)

    async def take(self, what: str, client: str, *, limit: int, seconds: int = 60, share: int = 1) -> None:
        """Count one `what` (a fixed word) of `client` (an address). A `limit` of 0 means none.

        With a `share` above 1, all processes together allow at most `limit`; each may allow up to `share` less. Raises
        `TooManyRequestsError`, `StoreUnavailableError`.
        """
        if limit <= 0 or self._is_exempt(client):
            return
        name = f"{what} {network_of(client)}"
        now = self._clock.now()
        window = self._windows.get(name)
        if window is None:
            window = _Window(now + seconds * 1000)
            self._windows.put(name, window, 0)
        elif window.ends_at <= now and window.turn is None:
            window.begin(now + seconds * 1000)
        while not window.allowed:
            if window.count >= limit:
                await self._refuse(what, window.ends_at - self._clock.now())
            if window.turn is None:
                await self._reserve(window, note_key("limit", name), max(share, window.waiting + 1), limit, seconds)
            else:  # another request of this client is writing; that write, or the next one, counts those that wait
                window.waiting += 1
                try:
                    error = await asyncio.shield(window.turn)
                finally:
                    window.waiting -= 1
                if error is not None:
                    raise StoreUnavailableError(*error.args) from error
        window.allowed -= 1

    async def _reserve(self, window: _Window, key: str, wanted: int, limit: int, seconds: int) -> None:
        """Raise the count in the store by `wanted`, but not above the limit."""
        turn = window.turn = asyncio.get_running_loop().create_future()
        failure: StoreUnavailableError | None = None
        try:
            await self._raise_count(window, key, wanted, limit, seconds)
        except StoreUnavailableError as error:
            failure = error
            raise
        finally:
            window.turn = None
            turn.set_result(failure)

    async def _raise_count(self, window: _Window, key: str, wanted: int, limit: int, seconds: int) -> None:
        for attempt in range(_MAX_ATTEMPTS):
            if (room := min(wanted, limit - window.count)) <= 0:
                return
            try:
                await self._write(window, key, window.count + room)
            except (SessionConflictError, SessionGoneError):
                if attempt:
                    await back_off(attempt)
                await self._read(window, key, limit, seconds)
            else:
                window.allowed += room
                return
        msg = "many processes count the same client at the same time"
        raise StoreUnavailableError(msg)

    async def _write(self, window: _Window, key: str, count: int) -> None:
        entry = Entry(encode_note(count), window.ends_at)
        if window.version:
            window.version = await self._store.replace(key, entry, version=window.version)
        else:
            await self._store.create(key, entry)
            window.version = 1
        window.count = count

    async def _read(self, window: _Window, key: str, limit: int, seconds: int) -> None:
        stored = await self._store.load(key)
        if stored is None:
            window.begin(self._clock.now() + seconds * 1000)
            return
        count = read_note(stored.entry.data, int)
        window.count = limit if count is None else count  # a damaged note allows nothing until it expires
        window.version, window.ends_at = stored.version, stored.entry.expires_at

    async def _refuse(self, what: str, milliseconds: int) -> None:
        await self._events.emit("request.limited", reason=what)
        raise TooManyRequestsError(max(1, -(-milliseconds // 1000)))

    def _is_exempt(self, client: str) -> bool:
        address = ip_of(client) if self._exempt else None
        return address is not None and any(address in network for network in self._exempt)
