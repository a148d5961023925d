"""Serializes all writes of one session in this process in a queue.

With compare-and-swap alone, each write of a busy session fails all concurrent ones. Here writers of a session wait for one
another, and all waiting changes are applied to the newest copy in ONE store write. Between processes the store's version decides,
and the loser applies its changes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from session_core.concurrency import back_off
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.sessions.record import SessionRecord, UndecodableError
from session_core.sessions.snapshot import STALE, Snapshot, entry_of, snapshot_of
from session_core.stores.deadlines import Step, check_deadline

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.recent import Recent
    from session_core.sessions.timeouts import Timeouts
    from session_core.stores.base import Entry, SessionStore

__all__ = ("Change", "SessionWriter")

Change: TypeAlias = Callable[[SessionRecord], SessionRecord]
"""Computes the new record from the newest one; runs again when another write won. Returns its argument for "no change"."""

_MAX_ATTEMPTS: Final = 100
_LEAST: Final = 1 / 20
"""The part of the patience that a writer must have left to join a batch, because all share the earliest deadline."""


class _Pending:
    """One waiting writer."""

    __slots__ = ("change", "context", "deadline", "error", "future", "outcome")

    def __init__(self, change: Change, future: asyncio.Future[Snapshot], deadline: float) -> None:
        self.change = change
        self.future = future
        self.context = copy_context()
        """The context of the waiting request: a change must not see another request's context variables."""
        self.deadline = deadline
        """When the request is answered 503; its change must not be written later."""
        self.outcome: SessionRecord | None = None
        self.error: Exception | None = None


class _Queue:
    """The waiting writers of one session, and a timer that fails those past their deadline."""

    __slots__ = ("_fires_at", "_loop", "_timer", "_writing", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = inf
        self._writing: list[_Pending] = []
        self.waiting: list[_Pending] = []

    def add(self, pending: _Pending) -> None:
        """Add a writer that waits until its deadline."""
        self.waiting.append(pending)
        if pending.deadline < self._fires_at:
            self._set_timer(pending.deadline)

    def take(self, least: float) -> list[_Pending]:
        """Take the writers of the next batch; those with less than `least` seconds left fail as too late."""
        latest = monotonic() + least
        self._writing = []
        for pending in self.waiting:
            if pending.deadline < latest:
                _fail(pending, _late())
            elif not pending.future.done():
                self._writing.append(pending)
        self.waiting.clear()
        return self._writing

    def close(self) -> None:
        """Stop the timer and cancel writers that still wait when the process stops."""
        if self._timer is not None:
            self._timer.cancel()
        for pending in (*self._writing, *self.waiting):
            pending.future.cancel()

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(deadline - monotonic(), self._answer_late)
        self._fires_at = deadline

    def _answer_late(self) -> None:
        self._fires_at = inf
        now = monotonic()
        for pending in (*self._writing, *self.waiting):
            if pending.deadline <= now:
                _fail(pending, _late())
        left = [pending.deadline for pending in (*self._writing, *self.waiting) if not pending.future.done()]
        if left:
            self._set_timer(min(left))


class SessionWriter:
    """Applies changes to stored sessions; each `write` returns only after the store has acknowledged it.

    Written sessions are cached in `recent`. `on_refused` is awaited with the key and the error of a refused write.
    """

    def __init__(
        self,
        store: SessionStore,
        timeouts: Timeouts,
        clock: Clock,
        recent: Recent[Snapshot],
        *,
        patience: float,
        on_refused: Callable[[str, SessionGoneError | SessionConflictError], Awaitable[None]],
    ) -> None:
        self._store = store
        self._recent = recent
        self._on_refused = on_refused
        self._timeouts = timeouts
        self._clock = clock
        self._patience = patience
        # By event loop as well: a task must not resolve a future of another loop (test clients, threads). None while a session is
        # written without another writer waiting.
        self._queues: dict[tuple[asyncio.AbstractEventLoop, str], _Queue | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, base: Snapshot, change: Change) -> Snapshot:
        """Apply `change` to the newest copy of a session and save it.

        Returns the session as it was right after this change. Raises what `change` raises (nothing is then saved for it),
        `SessionGoneError` when the session has ended, `SessionConflictError` when other processes win a hundred times in a
        row, `StoreUnavailableError` when the store does not answer (the write may or may not have been made).

        When the caller is cancelled, its write may or may not have been made; others continue.
        """
        loop, key = asyncio.get_running_loop(), base.key
        queues, address = self._queues, (loop, key)
        try:
            if address in queues:
                queue = queues[address] = queues[address] or _Queue(loop)
                return await self._wait(queue, change)
            # No other writer: write in this task, without an extra turn of the event loop.
            queues[address] = None
            known: Snapshot | None = None
            try:
                record = _changed(base, change)
                if record is not None:
                    entry = self._entry(base, record)
                    try:
                        version = await self._store.replace(key, entry, version=base.version)
                    except SessionConflictError:
                        pass  # another process has written since
                    else:
                        known = self._saved(key, version, record, entry)
                if known is None:
                    known = await self._write_newest(key, change)
                return known
            finally:
                if (others := queues[address]) is not None:
                    # In a separate task: this request continues, or was cancelled, while others wait.
                    task = asyncio.create_task(self._drain(address, others, known))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                else:
                    del queues[address]
        except (SessionGoneError, SessionConflictError) as error:
            await self._on_refused(key, error)
            raise
        except UndecodableError as error:
            # Another version of the application has written data that this one cannot decode: treated as ended.
            gone = SessionGoneError()
            await self._on_refused(key, gone)
            raise gone from error

    async def _wait(self, queue: _Queue, change: Change) -> Snapshot:
        """Write the change in a batch with others; waiting counts as store time."""
        with Step(self._patience) as step:
            check_deadline(step.deadline)
            pending = _Pending(change, asyncio.get_running_loop().create_future(), step.deadline)
            queue.add(pending)
            return await pending.future

    async def _write_newest(self, key: str, change: Change) -> Snapshot:
        """Read the newest copy, apply one change to it and save it."""
        with Step(self._patience) as step:
            pending = _Pending(change, asyncio.get_running_loop().create_future(), step.deadline)
            await self._commit(key, [pending], None)
        return pending.future.result()

    async def _drain(self, address: tuple[asyncio.AbstractEventLoop, str], queue: _Queue, known: Snapshot | None) -> None:
        try:
            while queue.waiting:
                if batch := queue.take(self._patience * _LEAST):
                    known = await self._commit_or_fail(address[1], batch, known)
        finally:
            del self._queues[address]
            queue.close()

    async def _commit_or_fail(self, key: str, batch: list[_Pending], known: Snapshot | None) -> Snapshot | None:
        """Commit a batch, or pass the error to its writers; return the newest copy if known."""
        try:
            # The earliest deadline applies to the whole batch: a change must not be written after its 503.
            with Step(until=min(pending.deadline for pending in batch)):
                return await self._commit(key, batch, known)
        except Exception as error:  # noqa: BLE001 - handed to the waiting requests
            for pending in batch:
                _fail(pending, error)
            return None

    async def _commit(self, key: str, batch: list[_Pending], known: Snapshot | None) -> Snapshot:
        """Apply a batch to the newest copy and save it; no writer gets a result from an older copy.

        `known` is the cached copy. Only a read here or a compare-and-swap proves that it is the newest.
        """
        for attempt in range(_MAX_ATTEMPTS):
            read = known is None
            current = await self._reload(key) if known is None else known
            record = _apply(batch, current.record)
            if record is current.record:
                if not read:
                    known = None  # without a swap this copy may not be the newest
                    continue
                _settle(batch, current)
                return current
            entry = self._entry(current, record)
            try:
                version = await self._store.replace(key, entry, version=current.version)
            except SessionConflictError:
                known = None
                if attempt:
                    await back_off(attempt)
                continue
            saved = self._saved(key, version, record, entry)
            _settle(batch, saved)
            return saved
        msg = "other processes kept changing the session"
        raise SessionConflictError(msg)

    def _entry(self, before: Snapshot, record: SessionRecord) -> Entry:
        """Return the entry to store for a changed copy. A write moves the expiry as rarely as a read: databases index it."""
        now, expires_at, timeouts = self._clock.now(), before.expires_at, self._timeouts.with_idle(record.idle)
        if timeouts.touch_due(now, expires_at, record.absolute_expires_at):
            expires_at = timeouts.expiry(now, record.absolute_expires_at)
        return entry_of(record, expires_at, before=before)

    def _saved(self, key: str, version: int, record: SessionRecord, entry: Entry) -> Snapshot:
        """Return the session as acknowledged by the store."""
        snapshot = Snapshot(key, version, entry.expires_at, record, entry)
        self._recent.put(key, snapshot, len(entry.data))
        return snapshot

    async def _reload(self, key: str) -> Snapshot:
        stored = await self._store.load(key)
        if stored is None:
            raise SessionGoneError
        return snapshot_of(stored)


def _changed(base: Snapshot, change: Change) -> SessionRecord | None:
    """Apply a change to the cached copy; None if the newest has to be read first.

    The newest is needed if nothing would be swapped, which proves nothing about the copy, and if the change raises: a result
    from an old copy is dropped.
    """
    if base.version == STALE:
        return None
    try:
        record = change(base.record)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - raised again where the newest copy says so, too
        return None
    return None if record is base.record else record


def _apply(batch: list[_Pending], record: SessionRecord) -> SessionRecord:
    """Apply the changes of a batch in order, leaving out those that raise. Results wait, because the copy may be old."""
    for pending in batch:
        if pending.future.done():
            continue
        pending.outcome = pending.error = None
        try:
            record = pending.outcome = pending.context.run(pending.change, record)
        except (StopIteration, asyncio.CancelledError) as error:
            # A future cannot carry StopIteration (see PEP 479), and CancelledError would stop the writes of others.
            pending.error = RuntimeError(f"the change raised {type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - belongs to the request that handed the change in
            pending.error = error
    return record


def _settle(batch: list[_Pending], newest: Snapshot) -> None:
    for pending in batch:
        if pending.future.done():
            continue
        if pending.error is not None:
            pending.future.set_exception(pending.error)
        elif pending.outcome is newest.record:
            pending.future.set_result(newest)
        elif pending.outcome is not None:
            # Later changes of the batch may follow: the caller gets the result of its change.
            pending.future.set_result(Snapshot(newest.key, STALE, newest.expires_at, pending.outcome))


def _late() -> StoreUnavailableError:
    return StoreUnavailableError("the write was not made in time")


def _fail(pending: _Pending, error: Exception) -> None:
    if not pending.future.done():
        pending.future.set_exception(error)
