"""The audit trail: writes events to the database in the background, and reads them for pages.

An audit database that is slow or down must neither delay nor undo a login. Events wait in a bounded queue, are
written in batches by one task, and are all written before a clean shutdown ends. Old entries are deleted in small steps while the
process runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog
from sqlalchemy import delete, insert, or_, select
from sqlalchemy.exc import SQLAlchemyError

from app.data.audit_repeats import Repeats
from app.data.database import Database, DatabaseUnavailableError, why_unavailable
from app.data.tables import audit as table
from app.web.request_context import current_request
from session_core.events import current_actor

if TYPE_CHECKING:
    from session_core import Clock, Event, SessionHandle

__all__ = ("COMMAND_LINE", "AuditEntry", "AuditTrail", "AuditWatch", "acting")

_CAPACITY: Final = 10_000
_BATCH: Final = 200
_RETRY: Final = 0.5
_TICK: Final = 20.0
"""Seconds without events after which the writer does its periodic work."""
_SHUTDOWN: Final = 1.0
_CANCEL: Final = 0.25
_DAY_MS: Final = 86_400_000
_TRIM_EVERY_MS: Final = 3_600_000
_TRIM_BATCH: Final = 500
_TRIM_PAUSE: Final = 0.1
"""Seconds between two batches, because the session store may use the same database."""
COMMAND_LINE: Final = "command line"
"""The actor of an operator's command."""
_NOT_KEPT: Final = frozenset(
    {"cookie.rejected", "cookie.resigned", "session.unknown", "session.swept", "store.unavailable", "store.weak"}
    | {"token.rejected", "login.started", "logout.frontchannel", "request.cross_site", "request.limited"}
)
"""Events only for logs and metrics: they are frequent and name no user."""
_BEGINNINGS: Final = ("login.succeeded", "session.created", "session.regenerated")
"""Events of a session under a new handle, in a request of that session's device."""
_BY_PROVIDER: Final = frozenset({"session.revoked", "logout.backchannel"})
"""Events of a verified message of the identity provider; they may name no user."""

_actor: ContextVar[str | None] = ContextVar("audit_actor", default=None)
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("app.data.audit")


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the trail. `at` is Unix milliseconds, `session` a public handle.

    `actor` is who did it, if not the user: an administrator's user key, or `COMMAND_LINE`. `count` is how often visitors repeated
    it in the minute before `at`.
    """

    at: int
    event: str
    user_key: str | None = None
    actor: str | None = None
    session: str | None = None
    reason: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    detail: str | None = None
    count: int = 1


class AuditWatch(Protocol):
    """Observes the state of the trail."""

    def audit_waits(self, entries: int) -> None:
        """Called with the number of entries not yet written."""
        ...

    def audit_lost(self) -> None:
        """Called when an entry is lost."""
        ...


@contextmanager
def acting(actor: str) -> Iterator[None]:
    """Record events of other users inside the block with `actor`."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


class AuditTrail:
    """The audit trail of one application."""

    def __init__(self, database: Database, clock: Clock, *, days: int, watch: AuditWatch | None = None) -> None:
        self._database = database
        self._clock = clock
        self._days = days
        self._queue: asyncio.Queue[AuditEntry] = asyncio.Queue(_CAPACITY)
        self._repeats = Repeats()
        self._writer: asyncio.Task[None] | None = None
        self._batch: list[AuditEntry] = []
        """The batch that is being inserted."""
        self._trim_at = 0
        self.lost = 0
        """The number of entries lost because the database was out for too long; they were logged."""
        self._watch = watch

    async def open(self, *, trims: bool = True) -> None:
        """Start writing and, with `trims`, deleting old entries."""
        self._queue = asyncio.Queue(_CAPACITY)
        self._writer = asyncio.create_task(self._write(trims=trims), name="audit trail")

    async def close(self, patience: float = _SHUTDOWN) -> None:
        """Write waiting entries for at most `patience` seconds, then stop; unwritten entries are logged."""
        await self.finish(patience)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            await asyncio.wait({writer}, timeout=_CANCEL)  # a frozen database does not even close
        lost = list(self._batch)
        while not self._queue.empty():
            lost.append(self._queue.get_nowait())
        if lost:
            _log.error("audit entries lost at shutdown", count=len(lost))
        for entry in lost:
            self._lose(entry)

    async def finish(self, timeout: float) -> None:  # noqa: ASYNC109 - waits at most so long, then goes on
        """Write everything, including repetitions that are still being counted; wait at most `timeout` seconds."""
        self._put(self._repeats.take())
        await self.flush(timeout)

    async def flush(self, timeout: float = 1.0) -> None:  # noqa: ASYNC109 - likewise
        """Return when everything so far is written, or after `timeout` seconds."""
        if self._writer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._queue.join()

    def record(self, event: Event) -> None:
        """Record an event of the session layer; an event listener for `SessionConfig`."""
        if event.name in _NOT_KEPT:
            return
        self._add(
            event.name,
            at=event.at,
            user_key=event.identity.user_key if event.identity else None,
            actor=event.actor.user_key if event.actor else None,
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
        actor: str | None = None,
        session: str | None = None,
        reason: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Record and log an action of the application. Never blocks and never fails.

        `actor` is who did it, if not the user; None: what `acting` says, or the administrator who acts as the user now.
        """
        actor = actor or _acting()
        # The log, too: it is kept when the database is restored from a backup.
        said = {"user": user_key, "actor": actor, "session": session, "reason": reason}
        _log.info(event, **{name: value for name, value in said.items() if value})
        self._add(event, at=at, user_key=user_key, actor=actor, session=session, reason=reason, detail=detail)

    def _add(
        self,
        event: str,
        *,
        at: int | None,
        user_key: str | None,
        actor: str | None,
        session: str | None,
        reason: str | None,
        detail: str | None,
    ) -> None:
        request, now = current_request.get(), self._clock.now()
        actor = actor or _acting()
        entry = AuditEntry(
            at=now if at is None else at,
            event=event,
            user_key=user_key,
            actor=None if actor == user_key else actor,
            session=session,
            reason=reason[:128] if reason else None,
            ip=request.ip or None,
            user_agent=request.user_agent or None,
            detail=detail,
        )
        named = entry.user_key is not None or entry.actor is not None or event in _BY_PROVIDER
        self._put([entry] if named else self._repeats.admit(entry, now))

    async def of_user(self, user_key: str, *, limit: int = 50) -> list[AuditEntry]:
        """Return the entries of a user, the latest first."""
        return await self._read(user_key=user_key, limit=limit)

    async def of_session(self, session: SessionHandle[Any], *, limit: int) -> list[AuditEntry]:
        """Return the entries of a session and, with a login, of its user."""
        user_key = session.identity.user_key if session.identity else None
        if session.handle is None:
            return []
        await self.flush(0.5)
        return await self._read(user_key=user_key, session=session.handle, limit=limit)

    async def latest(self, *, limit: int = 50) -> list[AuditEntry]:
        """Return the entries of all users, the latest first."""
        return await self._read(limit=limit)

    async def user_agents(self, entries: Sequence[AuditEntry]) -> dict[str, str]:
        """Return the user agents of the sessions that entries are about, by public handle, as at the last login or new id."""
        handles = {entry.session for entry in entries if entry.session}
        wanted = table.c.session.in_(handles), table.c.event.in_(_BEGINNINGS), table.c.user_agent.is_not(None)
        statement = select(table.c.session, table.c.user_agent).where(*wanted).order_by(table.c.id)
        async with self._database.connect() as connection:
            return {row.session: row.user_agent for row in await connection.execute(statement)}

    async def _read(self, *, limit: int, user_key: str | None = None, session: str | None = None) -> list[AuditEntry]:
        columns = [table.c[name] for name in AuditEntry.__struct_fields__]
        statement = select(*columns).order_by(table.c.id.desc()).limit(limit)
        wanted = [column == value for column, value in ((table.c.user_key, user_key), (table.c.session, session)) if value]
        if wanted:
            statement = statement.where(or_(*wanted))
        async with self._database.connect() as connection:
            return [AuditEntry(**row._mapping) for row in await connection.execute(statement)]  # noqa: SLF001 - public

    def _put(self, entries: Sequence[AuditEntry]) -> None:
        for entry in entries:
            try:
                self._queue.put_nowait(entry)
            except asyncio.QueueFull:
                self._lose(entry)
        if entries:
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        if self._watch is not None:
            self._watch.audit_waits(self._queue.qsize() + len(self._batch))

    def _lose(self, entry: AuditEntry) -> None:
        self.lost += 1
        if self._watch is not None:
            self._watch.audit_lost()
        fields = {name: value for name, value in msgspec.structs.asdict(entry).items() if value is not None}
        _log.error("audit entry lost", event_name=fields.pop("event"), **fields)

    async def _write(self, *, trims: bool) -> None:
        while True:
            self._put(self._repeats.due(self._clock.now()))
            pause = _TRIM_PAUSE if trims and await self._trim_if_due() else _TICK
            if entry := await self._next(pause):
                self._batch = [entry]
                while len(self._batch) < _BATCH and not self._queue.empty():
                    self._batch.append(self._queue.get_nowait())
                await self._insert(self._batch)
                written, self._batch = len(self._batch), []
                for _ in range(written):
                    self._queue.task_done()
                self._tell_waiting()

    async def _next(self, pause: float) -> AuditEntry | None:
        # Not `asyncio.wait_for`, which in Python 3.11 may drop the cancellation by `close`.
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                return await self._queue.get()
        return None

    async def _insert(self, batch: list[AuditEntry]) -> None:
        rows = [msgspec.structs.asdict(entry) for entry in batch]
        while True:
            try:
                async with self._database.begin() as connection:
                    await connection.execute(insert(table), rows)
            except (SQLAlchemyError, DatabaseUnavailableError) as error:
                _log.error("the audit trail cannot be written, trying again", reason=why_unavailable(error))
                await asyncio.sleep(_RETRY)
            else:
                return

    async def _trim_if_due(self) -> bool:
        """Delete some old entries; return whether there may be more."""
        now = self._clock.now()
        if now < self._trim_at:
            return False
        too_old = table.c.at < now - self._days * _DAY_MS
        try:
            async with self._database.begin() as connection:
                # Two steps: MySQL has no LIMIT in the subquery of a DELETE.
                oldest = select(table.c.id).where(too_old).order_by(table.c.at).limit(_TRIM_BATCH)
                found = (await connection.execute(oldest)).scalars().all()
                if found:
                    await connection.execute(delete(table).where(table.c.id.in_(found)))
        except DatabaseUnavailableError as error:
            _log.error("the audit trail cannot be trimmed, trying again", reason=why_unavailable(error))
            return False
        if len(found) == _TRIM_BATCH:
            return True
        self._trim_at = now + _TRIM_EVERY_MS
        return False


def _acting() -> str | None:
    """Return who acts on other users here: as `acting` says, or the administrator who acts as the user now."""
    administrator = current_actor()
    return _actor.get() or (administrator.user_key if administrator is not None else None)
