"""Watches the impersonations that this process serves: ends those no longer allowed and reports each end. Independent of ASGI.

The step that ends an impersonation may not read its record (the limit of sessions), and an expiry has no step. So each process
watches the impersonations that it has served, like open connections, and the first one that detects an end reports it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

import structlog

from session_core.connections.live import LiveConnections
from session_core.sessions.lifecycle import SessionLifecycle
from session_core.sessions.snapshot import Snapshot

__all__ = ("WatchedImpersonations",)

_ASK_SECONDS: Final = 5.0
"""Seconds between checks of the rule; each request checks it as well."""
_LEAVE_SECONDS: Final = 1.0
"""Seconds to wait for the request that ended it, which reports a more exact reason."""
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")


class WatchedImpersonations:
    """The impersonations that are watched in this process, from their first request here until they end."""

    def __init__(
        self, connections: LiveConnections, lifecycle: SessionLifecycle[Any], *, ask_seconds: float = _ASK_SECONDS
    ) -> None:
        self._connections = connections
        self._lifecycle = lifecycle
        self._ask_seconds = ask_seconds
        self._watched: dict[int, _Impersonation] = {}

    def enter(self, snapshot: Snapshot) -> None:
        """Watch the impersonation of a session that was just loaded, if it is not watched yet."""
        acting_as = snapshot.record.acting_as
        if acting_as is not None and acting_as.number not in self._watched:
            watched = self._watched[acting_as.number] = _Impersonation(self, acting_as.number, snapshot)
            self._connections.watch().add(watched, snapshot)
            self._connections.spawn(self._ask(watched), Context())

    def close(self) -> None:
        """Stop watching."""
        for watched in self._watched.values():
            watched.over.set()
        self._watched.clear()

    def leave(self, watched: _Impersonation, reason: str) -> None:
        """Report an impersonation that has ended."""
        self._watched.pop(watched.number, None)
        watched.over.set()
        self._connections.spawn(self._report(watched.snapshot, reason), Context())

    async def _report(self, snapshot: Snapshot, reason: str) -> None:
        if reason != "expired":
            await asyncio.sleep(_LEAVE_SECONDS)
        await self._lifecycle.report_acting_ended(snapshot, reason)

    async def _ask(self, watched: _Impersonation) -> None:
        """Check the rule until it ends. If the rule fails, the session stays, and its requests fail."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ask_seconds):
                    await watched.over.wait()
            if watched.over.is_set():
                return
            try:
                await self._lifecycle.end_refused(watched.snapshot)
            except Exception as error:  # noqa: BLE001 - any error of the application's rule, or an outage of the store
                _log.warning("impersonation could not be checked", error=type(error).__name__)


class _Impersonation:
    """One that is watched (`Watched`)."""

    __slots__ = ("_all", "number", "over", "snapshot")

    def __init__(self, all_: WatchedImpersonations, number: int, snapshot: Snapshot) -> None:
        self._all = all_
        self.number = number
        self.snapshot = snapshot
        self.over = asyncio.Event()

    def end(self, reason: str) -> None:
        """See `Watched.end`."""
        self._all.leave(self, reason)

    def follow(self, session: Snapshot) -> None:
        """See `Watched.follow`."""
        self.snapshot = session
