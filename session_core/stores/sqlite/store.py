"""Sessions in one SQLite file, on the standard library alone: the contract's asynchronous face.

Reads run in the event loop, those of one turn as one statement: they take microseconds, faster than in a thread, and never wait
for a writer. `Writer` commits all waiting writes in one transaction. Operations on many sessions run in steps of a millisecond or
two, with other requests in between. The measurements are in ADR 0022.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from session_core.clock import Clock, SystemClock
from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.announcements import Trace
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession, keeps_time
from session_core.stores.deadlines import remaining, step_deadline
from session_core.stores.sqlite import steps
from session_core.stores.sqlite.checkpoints import Checkpoints
from session_core.stores.sqlite.connection import is_busy, open_connections, unavailable
from session_core.stores.sqlite.writer import Writer

__all__ = ("SqliteStore",)

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_SECONDS: Final = 0.002
_LONGEST_REST: Final = 0.1
_of_a_parent: Final[list[object]] = []
"""Connections that a forked process must neither use nor close: they belong to the process that opened them."""


_NOT_READ: Final = object()


class _Turn:
    """The loads of one turn of an event loop: their keys and futures."""

    __slots__ = ("loads", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.loads: list[tuple[str, asyncio.Future[Any]]] = []


class SqliteStore:
    """Sessions in the tables `sessions` and `session_claims` of the file `path`, which is created if missing.

    Several processes of one machine may use the file at once, and other programs may have tables in it; it must be on a local
    disk. `timeout` is in seconds, for a call that has no deadline.

    `open` raises `ConfigurationError` where the file cannot hold sessions.
    """

    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=False)
    keeps_within = 1.0

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None, timeout: float = 5.0) -> None:
        if str(path) in {"", ":memory:"}:
            msg = "an in-memory SQLite database is visible to one connection only; use memory://, or a file: sqlite:///var/sessions.db"
            raise ConfigurationError(msg)
        self._path = Path(path).absolute()
        self._clock = clock or SystemClock()
        self._timeout = timeout
        self._reader: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        self._process = 0
        self._turn: _Turn | None = None
        """The loads that wait for the end of this turn of the event loop."""

    async def open(self) -> None:
        """See `SessionStore.open`. A second call begins anew."""
        await self.close()
        # Wait for the thread even if the caller is cancelled.
        self._use(await asyncio.to_thread(self._connect))

    async def close(self) -> None:
        """See `SessionStore.close`. Waits for the writes under way. It may be opened again."""
        reader, writer = self._reader, self._writer
        self._reader = self._writer = None
        if reader is None or writer is None:
            return
        if self._process != os.getpid():
            _of_a_parent.append((reader, writer))
            return
        reader.close()
        await writer.close()

    async def ping(self) -> None:
        """See `SessionStore.ping`."""
        await self.load("")
        await self._write(steps.ping)

    @keeps_time
    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        loop = asyncio.get_running_loop()
        turn = self._turn
        if turn is None or turn.loop is not loop or len(turn.loads) >= steps.LOADS_AT_ONCE:
            turn = self._turn = _Turn(loop)
            loop.call_soon(self._read_turn, turn)
        found: asyncio.Future[Any] = loop.create_future()
        turn.loads.append((key, found))
        row = await found
        if row is _NOT_READ:
            rows = await self._read(steps.LOAD[1], key, self._clock.now())
            row = rows[0] if rows else None
        return None if row is None else steps.stored(row)

    def _read_turn(self, turn: _Turn) -> None:
        """Read what was asked for in one turn of the event loop, as one statement."""
        if self._turn is turn:
            self._turn = None
        loads = turn.loads
        count = 1 << (len(loads) - 1).bit_length()
        keys = [key for key, _ in loads] + [""] * (count - len(loads))
        try:
            rows = self._opened()[0].execute(steps.LOAD[count], (*keys, self._clock.now())).fetchall()
        except (sqlite3.Error, StoreUnavailableError):
            for _, found in loads:
                if not found.done():
                    found.set_result(_NOT_READ)  # each load is retried alone until its deadline
            return
        by_key = {row[0]: row for row in rows}
        for key, found in loads:
            if not found.done():
                found.set_result(by_key.get(key))

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        surplus = await self._end_surplus(entry.user, limit, keep=key)
        return surplus + await self._write(steps.create, key, entry, limit=limit)

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""
        return await self._write(steps.replace, key, entry, version=version)

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        surplus = await self._end_surplus(entry.user, limit, keep=old_key)
        return surplus + await self._write(
            steps.rotate, old_key, new_key, entry, version=version, successor_until=successor_until, limit=limit
        )

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        return await self._write(steps.touch, key, expires_at)

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""
        return await self._write(steps.delete, key)

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        found = [steps.stored(row) async for row in self._rows(index)]
        now = self._clock.now()
        return [stored for stored in found if stored.entry.expires_at > now]

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`. One step for each hundred sessions, those rotated meanwhile included."""
        deleted: list[str] = []
        more = True
        try:
            while more:
                keys, more = await self._write(steps.delete_some, *index.column, keep or "")
                deleted += keys
        except StoreUnavailableError as error:
            error.not_applied = not deleted
            raise
        return tuple(deleted)

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`. Small steps, with rests as long as they took: others write in between."""
        removed = 0
        for table in ("sessions", "session_claims"):
            count = steps.ROWS
            while count == steps.ROWS and removed < limit:
                began = time.monotonic()
                count = await self._write(steps.remove_expired, table, limit - removed)
                removed += count
                await asyncio.sleep(min(time.monotonic() - began, _LONGEST_REST))
        return removed

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`. Reads page by page: no transaction stays open while the caller works."""
        after = ""
        while rows := await self._read(steps.PAGE, after):
            now = self._clock.now()
            for row in rows:
                if row[-1] is None and row[3] > now:
                    yield steps.stored(row)
            after = rows[-1][0]
            await asyncio.sleep(0)

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        return await self._write(steps.claim, name, expires_at)

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        rows = await self._read(steps.CLAIMED_UNTIL, name, self._clock.now())
        return rows[0][0] if rows else None

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`."""
        traces: dict[str, Trace] = {}
        for number, key in enumerate(keys):
            if number and number % steps.ROWS == 0:
                await asyncio.sleep(0)
            if rows := await self._read(steps.TRACE, key, self._clock.now()):
                traces[key] = Trace(*rows[0])
        return traces

    async def _end_surplus(self, user: str | None, limit: int, *, keep: str) -> tuple[str, ...]:
        """End sessions far above the limit in bounded steps, after a limit was lowered; the atomic step ends the rest.

        Expired sessions go as well: that step counts, and must not have to pass thousands of them.
        """
        if limit <= 0 or user is None:
            return ()
        ((count,),) = await self._read(steps.COUNT_OF_USER, user)
        if count <= limit + steps.ROWS:
            return ()
        now = self._clock.now()
        found = [steps.stored(row) async for row in self._rows(SessionIndex(user=user))]
        live = [stored for stored in found if stored.entry.expires_at > now and stored.key != keep]
        live.sort(key=lambda stored: stored.entry.rank)
        surplus = [stored.key for stored in live[: max(len(live) - limit, 0)]]
        surplus += [stored.key for stored in found if stored.entry.expires_at <= now]
        ended: list[str] = []
        for start in range(0, len(surplus), steps.ROWS):
            ended += await self._write(steps.end_some, user, surplus[start : start + steps.ROWS])
        return tuple(ended)

    async def _rows(self, index: SessionIndex) -> AsyncIterator[tuple[Any, ...]]:
        """Give the rows of an index, those that have expired too; other requests go on in between.

        A session that is rotated meanwhile is not missed: its new row comes last.
        """
        column, value = index.column
        after, more = 0, True
        while more:
            rows = await self._read(steps.PAGE_OF_INDEX[column], value, after)
            for row in rows:
                yield row
            if more := len(rows) == steps.ROWS:
                after = rows[-1][-1]
                await asyncio.sleep(0)

    async def _read(self, statement: str, *values: object) -> list[Any]:
        """Return the rows of a SELECT, which sees every commit before it."""
        deadline = 0.0
        while True:
            try:
                return self._opened()[0].execute(statement, values).fetchall()
            except sqlite3.Error as error:
                # Readers only wait for a recovery after a crash, and for programs that lock the file exclusively.
                deadline = deadline or time.monotonic() + min(remaining(self._timeout), self.keeps_within)
                if not is_busy(error) or time.monotonic() > deadline:
                    raise unavailable(error) from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _write(
        self, step: Callable[Concatenate[sqlite3.Connection, int, P], T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Run a step in a transaction; it is given the time at that moment."""
        deadline = step_deadline()
        if deadline is None:
            deadline = time.monotonic() + self._timeout
        clock = self._clock
        writer = self._opened()[1]
        return await writer.write(lambda connection: step(connection, clock.now(), *arguments, **options), deadline)

    def _opened(self) -> tuple[sqlite3.Connection, Writer]:
        reader, writer = self._reader, self._writer
        if reader is None or writer is None:
            msg = "the session store is not open"
            raise StoreUnavailableError(msg)
        if self._process == os.getpid():
            return reader, writer
        _of_a_parent.append((reader, writer))
        self._use(self._connect())
        return self._opened()

    def _connect(self) -> Sequence[sqlite3.Connection]:
        try:
            return open_connections(self._path, 3, timeout=self._timeout)
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error) from error

    def _use(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._reader, writer, checkpoints = connections
        self._writer = Writer(writer, Checkpoints(self._path, checkpoints))
        self._process = os.getpid()
