"""Watches the sessions of this process's open connections and closes these when they end. Independent of ASGI.

Only the store decides that a session has ended. It is asked about sessions that this process ended itself, that the store
announces (`session_core.stores.announcements`), and at certain times. While announcements arrive: when a session is due to
expire, once after its connection was opened, and all sessions every 30 seconds. Without announcements: all sessions in every
interval. An outage of the store closes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from contextvars import Context
from itertools import islice
from typing import Final

import structlog

from session_core.clock import Clock
from session_core.connections.watched import Watched, WatchedSession, WatchedSessions
from session_core.errors import SessionCoreError, StoreUnavailableError
from session_core.sessions.record import UndecodableError
from session_core.sessions.snapshot import STALE, Snapshot, lineage_of, snapshot_of
from session_core.stores.guarded import GuardedStore

__all__ = ("ConnectionWatch",)

_BATCH: Final = 500
"""Sessions in one query to the store."""
_SAFETY_SECONDS: Final = 30.0
"""Seconds between checks of all sessions while announcements arrive, in case one was lost."""
_RETRY_SECONDS: Final = 1.0
"""Seconds between attempts to reopen a lost channel; meanwhile the store is polled."""
_CLOSE_SECONDS: Final = 0.25
"""Seconds for closing a channel: a frozen server does not answer."""
_MAX_MOVES: Final = 100
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")


class ConnectionWatch:
    """The open connections of one event loop, and the two tasks that watch them; both begin with the first connection.

    `interval` in seconds is the time between polls without announcements, and how long a channel may be silent before it is
    probed. With `push=False` no channel is used. `on_outage` is called with a reason slug when the store stops answering or a
    channel is lost: once per outage, not per attempt.
    """

    def __init__(
        self,
        store: GuardedStore,
        clock: Clock,
        *,
        interval: float,
        push: bool,
        on_outage: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._interval = interval
        self._feed = store.feed if push else None
        self._on_outage = on_outage
        self._sessions = WatchedSessions(None if self._feed is None else self._feed.announced_name)
        self._hinted: dict[str, None] = {}
        """Keys to check now, before all others."""
        self._chosen: dict[str, None] = {}
        """Keys to check now."""
        self._due: dict[str, None] = {}
        """Keys to check in the next interval."""
        self._wake = asyncio.Event()
        self._hearing = False
        self._last_full_look = 0.0
        self._out: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, connection: Watched, snapshot: Snapshot) -> None:
        """Watch the session of a connection. An end since it was loaded is noticed in the next interval."""
        if not self._sessions:
            self._wake.set()
        self._enter(snapshot).connections.add(connection)
        if not self._tasks:
            # The tasks must not keep context variables of the first request, such as its session or its name in the log.
            self._tasks = [asyncio.create_task(self._poll_forever(), name="session-connections", context=Context())]
            if self._feed is not None:
                listening = self._listen_forever()
                self._tasks.append(asyncio.create_task(listening, name="session-announcements", context=Context()))

    def remove(self, connection: Watched, key: str) -> None:
        """Stop watching a connection. `key` is the current key of its session."""
        session = self._sessions.get(key)
        if session is not None:
            session.connections.discard(connection)
            if not session.connections:
                self._leave(session)

    def hint(self, keys: Iterable[str]) -> None:
        """Check these sessions now: they may have ended."""
        found = [key for key in keys if key in self._sessions]
        if found:
            self._hinted.update(dict.fromkeys(found))
            self._wake.set()

    async def close(self) -> None:
        """Stop watching."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)

    # -- when to look ----------------------------------------------------------------------------------------

    async def _poll_forever(self) -> None:
        loop = asyncio.get_running_loop()
        next_beat = 0.0
        while True:
            if not self._sessions:
                await self._wake.wait()
                # Wait a whole interval first: most streams end before it and cost no store call.
                next_beat = loop.time() + self._interval
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_beat):
                    await self._wake.wait()
            self._wake.clear()
            beat = loop.time() >= next_beat
            if beat:
                self._choose_due(loop.time())
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - one failed poll must not end polling
                _log.error("check of sessions failed", error=type(error).__name__)
            if beat:
                next_beat = loop.time() + self._interval

    def _choose_due(self, time: float) -> None:
        """Choose the sessions to check in this interval."""
        if not self._hearing or time - self._last_full_look >= _SAFETY_SECONDS:
            self._last_full_look = time
            self._due.update(dict.fromkeys(self._sessions))
        self._due.update(dict.fromkeys(self._sessions.take_expiring(self._clock.now())))
        self._chosen.update(self._due)
        self._due.clear()

    async def _listen_forever(self) -> None:
        while True:
            with suppress(SessionCoreError):
                await self._store.listen(self._heard, patience=self._interval)
            self._hearing = False
            self._tell_outage("announcements")
            await asyncio.sleep(random.uniform(0.5, 1) * _RETRY_SECONDS)  # noqa: S311 - not all processes at once

    def _heard(self, names: Sequence[str] | None) -> None:
        if names is None:  # announcements arrive from now on; earlier ones were missed
            self._hearing = True
            self._out.discard("announcements")
            self.hint(tuple(self._sessions))
        else:
            self.hint(key for name in names if (key := self._sessions.key_of(name)) is not None)

    # -- looking ---------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask the store about every hinted session; without an answer, ask again in the next interval."""
        while queue := self._hinted or self._chosen:
            keys = list(islice(queue, _BATCH))
            for key in keys:
                del queue[key]
            try:
                await self._judge(keys)
            except StoreUnavailableError:
                self._due.update(dict.fromkeys([*keys, *self._hinted, *self._chosen]))
                self._hinted.clear()
                self._chosen.clear()
                self._tell_outage("connections")
                return
            self._out.discard("connections")

    async def _judge(self, keys: Collection[str]) -> None:
        watched = [key for key in keys if key in self._sessions]
        traces = await self._store.trace(watched) if watched else {}
        moved: list[tuple[WatchedSession, str]] = []
        for key in watched:
            session, trace = self._sessions.get(key), traces.get(key)
            if session is None:
                continue
            if trace is None:
                self._end(session)
            elif trace.successor is not None:
                moved.append((session, trace.successor))
            else:
                self._sessions.expect(session, trace.expires_at)
        for session, successor in moved:
            await self._follow(session, successor)

    async def _follow(self, session: WatchedSession, successor: str) -> None:
        """Follow a rotation to the new key: a regenerated session continues, one with a new login does not."""
        for _ in range(_MAX_MOVES):
            stored = await self._store.load(successor)
            if stored is not None:
                with suppress(UndecodableError):
                    newest = snapshot_of(stored)
                    if lineage_of(newest) == session.lineage:
                        self._move(session, newest)
                        return
                break
            trace = (await self._store.trace([successor])).get(successor)
            if trace is None:
                break
            successor = trace.successor or successor
        self._end(session)

    def _move(self, session: WatchedSession, newest: Snapshot) -> None:
        if not session.connections:  # they were closed while the store was asked
            return
        self._leave(session)
        there = self._enter(newest)
        self._hinted[newest.key] = None  # announced before this key was watched? read the store again
        for connection in session.connections:
            there.connections.add(connection)
            connection.follow(Snapshot(newest.key, STALE, newest.expires_at, newest.record))

    def _end(self, session: WatchedSession) -> None:
        self._leave(session)
        reason = "expired" if session.expires_at <= self._clock.now() else "ended"
        for connection in session.connections:
            connection.end(reason)

    def _enter(self, snapshot: Snapshot) -> WatchedSession:
        """Return the watched session, adding it if needed; the store is asked in the next interval."""
        self._due[snapshot.key] = None
        return self._sessions.enter(snapshot)

    def _leave(self, session: WatchedSession) -> None:
        self._due.pop(session.key, None)
        self._sessions.leave(session)

    def _tell_outage(self, of: str) -> None:
        if of not in self._out:
            self._out.add(of)
            self._on_outage(of)
