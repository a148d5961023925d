"""The audit trail: writes what happened to the database, off the request's path, and reads it back for people.

An audit database that is slow or down must neither delay nor undo a login. Events wait in a bounded queue, are
written in batches by one task, and are all written before a clean shutdown ends.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from sqlalchemy import delete, insert, or_, select
from sqlalchemy.exc import SQLAlchemyError

from app.data.database import DatabaseUnavailableError
from app.data.tables import audit as table
from app.web.request_context import current_request

if TYPE_CHECKING:
    from app.data.database import Database
    from session_core import Clock, Event, SessionHandle

__all__ = ("AuditEntry", "AuditTrail")

_CAPACITY: Final = 10_000
_BATCH: Final = 200
_RETRY: Final = 0.5
_SHUTDOWN: Final = 5.0
_DAY_MS: Final = 86_400_000
_NOT_KEPT: Final = frozenset(
    {"cookie.rejected", "cookie.resigned", "session.unknown", "session.swept", "store.unavailable", "store.weak"}
    | {"login.started", "logout.frontchannel", "request.cross_site"}
)
"""Told by logs and metrics alone: anybody on the network can cause them in any number, and they name no user."""

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("app.data.audit")


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the trail. `at` is Unix milliseconds, `session` a public handle."""

    at: int
    event: str
    user_key: str | None = None
    session: str | None = None
    reason: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    detail: str | None = None


class AuditTrail:
    """Keeps the trail of one application."""

    def __init__(self, database: Database, clock: Clock, *, days: int) -> None:
        self._database = database
        self._clock = clock
        self._days = days
        self._queue: asyncio.Queue[AuditEntry] = asyncio.Queue(_CAPACITY)
        self._writer: asyncio.Task[None] | None = None
        self.lost = 0
        """Entries that could not be kept because the database was out for too long."""

    async def open(self) -> None:
        """Start writing; forget what is older than it is kept."""
        self._queue = asyncio.Queue(_CAPACITY)
        self._writer = asyncio.create_task(self._write(), name="audit trail")

    async def close(self) -> None:
        """Write what waits, then stop."""
        await self.flush(_SHUTDOWN)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
        if remaining := self._queue.qsize():
            self.lost += remaining
            _log.error("audit entries lost at shutdown", count=remaining)

    async def flush(self, timeout: float = 1.0) -> None:  # noqa: ASYNC109 - waits at most so long, then goes on
        """Return when everything so far is written, or after `timeout` seconds."""
        if self._writer is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._queue.join(), timeout)

    def record(self, event: Event) -> None:
        """Note an event of the session layer; an event listener for `SessionConfig`."""
        if event.name in _NOT_KEPT:
            return
        self.add(
            event.name,
            at=event.at,
            user_key=event.identity.user_key if event.identity else None,
            session=event.handle,
            reason=event.reason,
            detail=msgspec.json.encode(event.detail).decode() if event.detail else None,
        )

    def add(
        self,
        event: str,
        *,
        at: int | None = None,
        user_key: str | None = None,
        session: str | None = None,
        reason: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Note something that the application did. Never blocks and never fails."""
        request = current_request.get()
        entry = AuditEntry(
            at=self._clock.now() if at is None else at,
            event=event,
            user_key=user_key,
            session=session,
            reason=reason[:128] if reason else None,
            ip=request.ip or None,
            user_agent=request.user_agent or None,
            detail=detail,
        )
        try:
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            self.lost += 1
            _log.error("audit entry lost", event_name=event)

    async def of_user(self, user_key: str, *, limit: int = 50) -> list[AuditEntry]:
        """Return what happened to a user, the latest first."""
        return await self._read(user_key=user_key, limit=limit)

    async def of_session(self, session: SessionHandle[Any], *, limit: int = 12) -> list[AuditEntry]:
        """Return what happened to a session and, when somebody is logged in, to that user elsewhere."""
        user_key = session.identity.user_key if session.identity else None
        if session.handle is None:
            return []
        await self.flush(0.5)
        return await self._read(user_key=user_key, session=session.handle, limit=limit)

    async def latest(self, *, limit: int = 50) -> list[AuditEntry]:
        """Return what happened to anybody, the latest first."""
        return await self._read(limit=limit)

    async def _read(self, *, limit: int, user_key: str | None = None, session: str | None = None) -> list[AuditEntry]:
        columns = [table.c[name] for name in AuditEntry.__struct_fields__]
        statement = select(*columns).order_by(table.c.id.desc()).limit(limit)
        wanted = [column == value for column, value in ((table.c.user_key, user_key), (table.c.session, session)) if value]
        if wanted:
            statement = statement.where(or_(*wanted))
        async with self._database.connect() as connection:
            return [AuditEntry(**row._mapping) for row in await connection.execute(statement)]  # noqa: SLF001 - public

    async def _write(self) -> None:
        await self._forget()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._insert(batch)
            for _ in batch:
                self._queue.task_done()

    async def _insert(self, batch: list[AuditEntry]) -> None:
        rows = [msgspec.structs.asdict(entry) for entry in batch]
        while True:
            try:
                async with self._database.begin() as connection:
                    await connection.execute(insert(table), rows)
            except (SQLAlchemyError, DatabaseUnavailableError, OSError) as error:
                _log.error("the audit trail cannot be written, trying again", error=type(error).__name__)
                await asyncio.sleep(_RETRY)
            else:
                return

    async def _forget(self) -> None:
        oldest = self._clock.now() - self._days * _DAY_MS
        with suppress(SQLAlchemyError, DatabaseUnavailableError, OSError):
            async with self._database.begin() as connection:
                await connection.execute(delete(table).where(table.c.at < oldest))
