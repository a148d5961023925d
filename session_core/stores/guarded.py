"""Puts a deadline on every store call and turns every failure into `StoreUnavailableError`.

Every end of a session passes here, so this module also reports the sessions that this process has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final, TypeVar

from session_core.calls import Calls
from session_core.errors import SessionCoreError, StoreUnavailableError
from session_core.stores.announcements import Heard, RevocationFeed, Trace, trace
from session_core.stores.base import Entry, SessionIndex, SessionStore, StoreCapabilities, StoredSession
from session_core.stores.deadlines import START_SECONDS, Deadlines, RequestTime, Step, check_deadline, lone_request

__all__ = ("GuardedStore",)

T = TypeVar("T")

_UPKEEP_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 1.0


class GuardedStore:
    """A store whose calls return within `timeout` seconds or raise `StoreUnavailableError`.

    `on_outage` is awaited with a reason slug for each failed call. `on_ended` is called with the keys of sessions that a call
    has, or may have, ended or rotated.
    """

    def __init__(
        self, inner: SessionStore, *, timeout: float, on_outage: Callable[[str], Awaitable[None]], calls: Calls | None = None
    ) -> None:
        self.inner = inner
        self._calls = calls or Calls()
        self._timeout = timeout
        self._deadlines = Deadlines()
        self._loads_in_time = self._keeps_time("load")
        self._replaces_in_time = self._keeps_time("replace")
        self._rotates_in_time = self._keeps_time("rotate")
        self._on_outage = on_outage
        self.on_ended: Callable[[Collection[str]], None] | None = None
        self._opened = False
        self._closed = False
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    @property
    def capabilities(self) -> StoreCapabilities:
        """The capabilities of the wrapped store."""
        return self.inner.capabilities

    async def open(self) -> None:
        """See `SessionStore.open`, with more time than a request has: the first connection and the tables take longer.

        A store that cannot be opened now is opened by the first call after it is back.
        """
        self._closed = False
        await self._bounded(self._open(), apart=max(self._timeout, START_SECONDS))

    async def close(self) -> None:
        """See `SessionStore.close`; gives up after a while on a hanging store."""
        self._opened = False
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.inner.close()

    async def ping(self) -> None:
        """See `SessionStore.ping`."""
        await self._called("store.ping", self.inner.ping())

    def load(self, key: str) -> Coroutine[Any, Any, StoredSession | None]:
        """See `SessionStore.load`."""
        return self._called("store.load", self.inner.load(key), keeps_time=self._loads_in_time)

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        return self._ended(await self._called("store.create", self.inner.create(key, entry, limit=limit)))

    def replace(self, key: str, entry: Entry, *, version: int) -> Coroutine[Any, Any, int]:
        """See `SessionStore.replace`."""
        return self._called("store.replace", self.inner.replace(key, entry, version=version), keeps_time=self._replaces_in_time)

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        try:
            return self._ended(
                await self._called(
                    "store.rotate",
                    self.inner.rotate(old_key, new_key, entry, version=version, successor_until=successor_until, limit=limit),
                    keeps_time=self._rotates_in_time,
                )
            )
        finally:
            self._ended((old_key,))

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        return await self._called("store.touch", self.inner.touch(key, expires_at))

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""
        try:
            return self._ended(await self._called("store.delete", self.inner.delete(key)))
        finally:
            self._ended((key,))

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        return await self._called("store.find", self.inner.find(index))

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`."""
        return self._ended(await self._called("store.delete_by", self.inner.delete_by(index, keep=keep)))

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`; upkeep, which no request waits for, has another deadline."""
        return await self._bounded(self.inner.delete_expired(limit), apart=_UPKEEP_SECONDS)

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`; without a deadline, because its duration depends on the size of the store."""
        await self._bounded(self._ready())
        async for stored in self.inner.scan():
            yield stored

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        return await self._called("store.claim", self.inner.claim(name, expires_at))

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        return await self._called("store.claimed_until", self.inner.claimed_until(name))

    @property
    def feed(self) -> RevocationFeed | None:
        """The store's announcements, if it has any."""
        return self.inner if isinstance(self.inner, RevocationFeed) and self.inner.pushes else None

    async def trace(self, keys: Collection[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`. An outage is not reported to `on_outage`, because the caller polls."""
        return await self._bounded(trace(self.inner, keys), tell=False)

    async def listen(self, heard: Heard, *, patience: float) -> None:
        """See `RevocationFeed.listen`; returns only when there is no channel."""
        feed = self.feed
        if feed is None:
            return
        await self._bounded(self._ready(), tell=False)
        try:
            await feed.listen(heard, patience=patience)
        except SessionCoreError:
            raise
        except Exception as error:
            msg = f"the session store does not announce ended sessions: {type(error).__name__}"
            raise StoreUnavailableError(msg) from error

    def _called(self, name: str, call: Coroutine[Any, Any, T], *, keeps_time: bool = False) -> Coroutine[Any, Any, T]:
        if keeps_time and self._opened and (request := lone_request()) is not None:
            return self._calls.observed(name, self._unwatched(call, request))
        return self._calls.observed(name, self._bounded(call, keeps_time=keeps_time))

    def _ended(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        if self.on_ended is not None and keys:
            self.on_ended(keys)
        return keys

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._opening is None or self._opening[0] is not loop:
            # A lock per event loop: an application may be restarted in another one.
            self._opening = (loop, asyncio.Lock())
        async with self._opening[1]:
            if not self._opened:
                await self.inner.open()
                self._opened = True

    async def _ready(self) -> None:
        if self._opened:
            return
        if self._closed:
            msg = "the session store is closed"
            raise StoreUnavailableError(msg)
        await self._open()

    def _keeps_time(self, name: str) -> bool:
        # Only the marked method itself: an override or a wrapper may take longer.
        timed: bool = getattr(getattr(type(self.inner), name, None), "keeps_time", False)
        return timed and getattr(self.inner, "keeps_within", inf) <= self._timeout

    async def _unwatched(self, call: Coroutine[Any, Any, T], request: RequestTime) -> T:
        """Return the result of a call that keeps the time limit itself and is the only one of its request: needs no timer."""
        request.until = monotonic() + self._timeout
        try:
            return await call
        except Exception as error:
            request.end_alone(self._timeout)  # end the step before reporting: a listener may be slow
            await self._report(error)
            raise
        finally:
            if request.until:
                request.end_alone(self._timeout)

    async def _bounded(
        self, call: Coroutine[Any, Any, T], *, tell: bool = True, keeps_time: bool = False, apart: float | None = None
    ) -> T:
        """Return the result of a call before the deadline of its step, in one frame and with the shared timer.

        `keeps_time`: the store itself keeps the whole timeout, and needs a timer only for less. `apart`: the seconds of work that
        no request waits for.
        """
        step = Step(self._timeout) if apart is None else Step(until=monotonic() + apart)
        deadlines = self._deadlines
        task: asyncio.Task[Any] | None = None
        try:
            if self._opened and apart is None:
                if not step.is_whole:
                    check_deadline(step.deadline)
                elif keeps_time:
                    return await call
                task = deadlines.begin(step.deadline)
            return await (self._apart(call, step.deadline) if task is None else call)
        except asyncio.CancelledError:
            if task is None or not deadlines.is_over(task):
                raise
            step.end()
            await self._report(TimeoutError(), tell=tell)
            raise
        except Exception as error:
            if task is not None:
                deadlines.end(task)
            step.end()  # end the step before reporting: a listener may be slow
            await self._report(error, tell=tell)
            raise
        finally:
            if task is not None:
                deadlines.end(task)
            step.end()
            call.close()  # never awaited if the deadline had passed or the store could not be opened

    async def _apart(self, call: Coroutine[Any, Any, T], deadline: float) -> T:
        """The same with a separate timer; opens the store if needed."""
        check_deadline(deadline)
        async with asyncio.timeout(deadline - monotonic()):
            await self._ready()
            return await call

    async def _report(self, error: Exception, *, tell: bool = True) -> None:
        """Report an outage and raise it. By contract, any exception of a store other than the library's own is an outage."""
        if isinstance(error, SessionCoreError):
            if tell and isinstance(error, StoreUnavailableError):
                await self._on_outage(error.kind or "unavailable")
            return
        late = isinstance(error, TimeoutError)
        kind = type(error).__name__  # only the class: a driver's message may quote values
        if tell:
            await self._on_outage("timeout" if late else kind)
        msg = "the session store did not answer in time" if late else f"the session store failed: {kind}"
        raise StoreUnavailableError(msg) from (None if late else error)
