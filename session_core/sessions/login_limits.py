"""Limits the sessions of a user: the oldest ends, or a further login is refused. Also detects logins from new devices."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from session_core.concurrency import back_off, in_turns
from session_core.errors import SessionConflictError, SessionLimitError, StoreUnavailableError
from session_core.identity import Identity
from session_core.sessions.notes import encode_note, is_note, note_key
from session_core.sessions.record import UndecodableError
from session_core.sessions.snapshot import Snapshot, snapshot_of
from session_core.stores.base import Entry, SessionIndex, SessionStore, StoredSession

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.events import Events
    from session_core.sessions.lifecycle import NewLogin

__all__ = ("LoginLimits", "UserLimit")

UserLimit: TypeAlias = "int | Callable[[Identity], int | Awaitable[int]]"

_SECOND: Final = 1000


class LoginLimits:
    """The limit of sessions for each user.

    `limit` is a number or a callable that returns one, 0 for none; `most` is the library's limit if the application sets none.
    `patience`: seconds that all store calls of one login may take.
    """

    def __init__(
        self,
        store: SessionStore,
        clock: Clock,
        events: Events,
        limit: UserLimit,
        *,
        most: int = 0,
        on_limit: Literal["evict", "refuse"] = "evict",
        new_device_events: bool = False,
        patience: float = 2.0,
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._limit = limit
        self._most = most
        self._on_limit = on_limit
        self._new_device_events = new_device_events
        self._patience = patience

    @property
    def fixed(self) -> int | None:
        """The limit that `admitted` yields for every login, if it needs no other check, else None."""
        limit = self._limit
        if not isinstance(limit, int) or self._new_device_events or (limit > 0 and self._on_limit == "refuse"):
            return None
        return max(0, limit) or self._most

    @asynccontextmanager
    async def admitted(self, login: NewLogin, replaced: Snapshot | None) -> AsyncIterator[int]:
        """Run a login inside the block; yields the limit above which the store ends the oldest session, 0 for none.

        `replaced` is the session that the browser has; one of the same user gives its place to the login. Raises
        `SessionLimitError` where the user has no place left and further logins are refused, and `StoreUnavailableError`. That may
        be after the login: then its session has to end.
        """
        given = self._limit if isinstance(self._limit, int) else self._limit(login.identity)
        limit = max(0, await given if inspect.isawaitable(given) else given)
        known = not self._new_device_events or await self._is_known_device(login, replaced)
        if limit and self._on_limit == "refuse":
            async with self._alone(login.identity):
                others = [stored for stored in await self._sessions_of(login.identity) if not _is(stored, replaced)]
                if len(others) >= limit:
                    raise SessionLimitError
                yield 0
                # The note may have expired for others by now: this process was suspended, or its clock is behind.
                if len(await self._sessions_of(login.identity)) > limit:
                    raise SessionLimitError
        else:
            yield limit or self._most
        if not known:
            await self._events.emit("login.new_device", identity=login.identity)

    @asynccontextmanager
    async def _alone(self, identity: Identity) -> AsyncIterator[None]:
        """Keep other logins of this user out, in all processes: they would count the same sessions, and both be refused."""
        key = note_key("login", identity.user_key)
        give_up, attempt = monotonic() + self._patience, 0
        while True:
            until = self._clock.now() + round(2 * self._patience * _SECOND) + _SECOND
            try:
                await self._store.create(key, Entry(encode_note(True), until))  # noqa: FBT003 - a note's whole content
            except SessionConflictError:
                if monotonic() >= give_up:
                    raise
                await back_off(attempt := attempt + 1)
            else:
                break
        try:
            yield
        finally:
            with suppress(StoreUnavailableError):
                await asyncio.shield(self._store.delete(key))

    async def _sessions_of(self, identity: Identity) -> list[StoredSession]:
        found = await self._store.find(SessionIndex(user=identity.user_key))
        return [stored for stored in found if not is_note(stored.entry.data)]

    async def _is_known_device(self, login: NewLogin, replaced: Snapshot | None) -> bool:
        """Whether this browser is logged in as this user, or a live session of the user has the same user agent."""
        if (
            replaced is not None
            and replaced.record.identity is not None
            and login.identity.is_same_user(replaced.record.identity)
        ):
            return True
        async for stored in in_turns(await self._sessions_of(login.identity)):
            with suppress(UndecodableError):
                if snapshot_of(stored).record.device.user_agent == login.device.user_agent:
                    return True
        return False


def _is(stored: StoredSession, snapshot: Snapshot | None) -> bool:
    return snapshot is not None and stored.key == snapshot.key
