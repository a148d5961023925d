"""Security events for the log and for listeners; never contain an id, a token or a cookie."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Literal, Protocol, TypeAlias
from weakref import ref

import msgspec
import structlog

from session_core.clock import Clock
from session_core.identity import Identity

__all__ = ("Event", "EventListener", "EventName", "Events", "current_actor", "current_session")

EventName: TypeAlias = Literal[
    "cookie.rejected",
    "cookie.resigned",
    "token.rejected",
    "session.created",
    "session.regenerated",
    "session.destroyed",
    "session.revoked",
    "session.revocation_failed",
    "session.evicted",
    "session.unknown",
    "session.gone",
    "session.conflict",
    "session.undecodable",
    "session.unsaved",
    "session.swept",
    "connection.closed",
    "store.unavailable",
    "store.weak",
    "request.cross_site",
    "request.limited",
    "access.denied",
    "impersonation.started",
    "impersonation.ended",
    "login.started",
    "login.succeeded",
    "login.failed",
    "login.silent_failed",
    "login.new_device",
    "logout.local",
    "logout.backchannel",
    "logout.frontchannel",
    "logout.rejected",
    "tokens.refreshed",
    "tokens.refresh_failed",
    "tokens.revocation_failed",
]
"""The names are stable: dashboards and audit queries may depend on them."""

_LEVELS: dict[str, int] = {
    "cookie.rejected": logging.WARNING,
    "token.rejected": logging.WARNING,
    "session.unknown": logging.DEBUG,
    "session.conflict": logging.WARNING,
    "session.undecodable": logging.ERROR,
    "session.unsaved": logging.ERROR,
    "session.revocation_failed": logging.ERROR,
    "session.swept": logging.DEBUG,
    "store.unavailable": logging.ERROR,
    "store.weak": logging.WARNING,
    "request.cross_site": logging.WARNING,
    "request.limited": logging.WARNING,
    "access.denied": logging.WARNING,
    "impersonation.started": logging.WARNING,
    "login.failed": logging.WARNING,
    "logout.rejected": logging.WARNING,
    "tokens.refresh_failed": logging.WARNING,
    "tokens.revocation_failed": logging.WARNING,
}


class _Acting(Protocol):
    """The session of a request."""

    @property
    def actor(self) -> Identity | None: ...


current_session: ContextVar[ref[_Acting] | None] = ContextVar("current_session", default=None)
"""Of the request that is being served; set by the session middleware where administrators may act as other users."""


def current_actor() -> Identity | None:
    """Return the administrator who acts as another user in this request, where its session was loaded; else None."""
    reference = current_session.get()
    session = None if reference is None else reference()
    return None if session is None else session.actor


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `at` is Unix milliseconds, `handle` the public handle of the session.

    `identity` is the user it happened to. `actor` is the administrator who acted as that user, or as another one, when it did.
    `reason` is a short stable slug; `detail` holds further values that are safe to log.
    """

    name: EventName
    at: int
    handle: str | None = None
    identity: Identity | None = None
    actor: Identity | None = None
    reason: str | None = None
    detail: dict[str, str | int] = {}


EventListener: TypeAlias = Callable[[Event], Awaitable[None] | None]
"""A function called with each event, in the request it belongs to. The request waits at most five seconds for it; its errors are
only logged."""

_LISTENER_SECONDS = 5.0


class Events:
    """Sends events to the log and to the configured listeners."""

    def __init__(self, clock: Clock, listeners: tuple[EventListener, ...] = ()) -> None:
        self._soon: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._listeners = listeners
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")

    def emit_soon(self, name: EventName, *, handle: str | None, reason: str) -> None:
        """Emit an event from code that cannot await. Does nothing without a running event loop."""
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            task = loop.create_task(self.emit(name, handle=handle, reason=reason))
            self._soon.add(task)
            task.add_done_callback(self._soon.discard)

    async def emit(
        self,
        name: EventName,
        *,
        handle: str | None = None,
        identity: Identity | None = None,
        actor: Identity | None = None,
        reason: str | None = None,
        **detail: str | int,
    ) -> None:
        """Log the event and call every listener. Never raises an error of a listener. `actor`: that of the request, if None."""
        actor = current_actor() if actor is None else actor
        event = Event(
            name=name, at=self._clock.now(), handle=handle, identity=identity, actor=actor, reason=reason, detail=detail
        )
        fields: dict[str, str | int] = dict(detail)
        if handle:
            fields["session"] = handle
        if reason:
            fields["reason"] = reason
        if identity:
            # The user key, not the subject: a subject may be an e-mail address at some providers.
            fields["user"] = identity.user_key
        if actor:
            fields["actor"] = actor.user_key
        self._log.log(_LEVELS.get(name, logging.INFO), name, **fields)
        for listener in self._listeners:
            try:
                result = listener(event)
                if inspect.isawaitable(result):
                    async with asyncio.timeout(_LISTENER_SECONDS):
                        await result
            except Exception as error:  # noqa: BLE001 - an audit sink that is down must not undo a logout
                self._log.error("event listener failed", event_name=name, error=type(error).__name__)
