"""Keeps sessions from expiring during long requests. Independent of stores.

A request in progress counts as use, however long an upload or a slow handler takes. If less than half of the idle timeout is left
when the session is loaded, it is extended at once; then all requests in progress are checked four times per idle timeout. The
absolute timeout stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

from session_core.errors import SessionCoreError
from session_core.sessions.handle import SessionHandle

__all__ = ("RequestsUnderWay",)

_LOOKS: Final = 4


class RequestsUnderWay:
    """The requests of an application in this process whose response has not started. `idle` is the idle timeout in seconds."""

    def __init__(self, idle: float) -> None:
        self._interval = idle / _LOOKS
        # By event loop: a session is extended in the loop of its request.
        self._requests: dict[SessionHandle[Any], asyncio.AbstractEventLoop] = {}
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, session: SessionHandle[Any]) -> None:
        """Add a request that has begun."""
        loop = asyncio.get_running_loop()
        self._requests[session] = loop
        if loop not in self._timers:
            self._schedule(loop)

    def end(self, session: SessionHandle[Any]) -> None:
        """Remove a request that has ended."""
        self._requests.pop(session, None)

    async def extend(self) -> None:
        """Extend the sessions of this event loop's requests that are due."""
        loop = asyncio.get_running_loop()
        await self._extend([session for session, its_loop in tuple(self._requests.items()) if its_loop is loop])

    def close(self) -> None:
        """Stop the timer of this event loop."""
        timer = self._timers.pop(asyncio.get_running_loop(), None)
        if timer is not None:
            timer.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        for other in tuple(self._timers):
            if other.is_closed():
                self._timers.pop(other, None)
        # In an empty context: the timer must not keep context variables of the first request.
        self._timers[loop] = loop.call_later(self._interval, self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        sessions = [session for session, its_loop in tuple(self._requests.items()) if its_loop is loop]
        if not sessions:
            del self._timers[loop]
            return
        self._schedule(loop)
        task = loop.create_task(self._extend(sessions))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _extend(sessions: Iterable[SessionHandle[Any]]) -> None:
        for session in sessions:
            if not session.response_started:
                with suppress(SessionCoreError):  # the request itself fails with it
                    await session.extend()
