"""The operations on one session: begin, load, write, regenerate, log in, destroy. Independent of ASGI and cookies.

    load_session -> (handler) -> save_session

Every write is "only if it still exists, at this version", so a write never revives an ended session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from secrets import randbits
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from session_core.clock import TOLERATED_SKEW_MS, Clock
from session_core.concurrency import in_turns
from session_core.errors import (
    AccessDeniedError,
    ConfigurationError,
    ForbiddenError,
    ImpersonationForbiddenError,
    LoginRequiredError,
    SessionConflictError,
    SessionGoneError,
    SessionLimitError,
    StepUpRequiredError,
    StoreUnavailableError,
)
from session_core.identity import Identity
from session_core.ids import UncertainId, handle_of, new_session_id, session_key
from session_core.recent import Recent
from session_core.sessions.logout_marks import CERTAIN_MS, was_ended_since
from session_core.sessions.record import ActingAs, DataCodec, Device, SessionRecord, UndecodableError
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.snapshot import STALE, Snapshot, entry_of, lineage_of, snapshot_of
from session_core.sessions.store_order import Moment
from session_core.sessions.writer import Change, SessionWriter
from session_core.stores.announcements import trace

if TYPE_CHECKING:
    from session_core.events import Events
    from session_core.impersonation import Impersonation
    from session_core.sessions.login_limits import LoginLimits
    from session_core.sessions.timeouts import Timeouts
    from session_core.stores.base import SessionStore, StoredSession

__all__ = ("NewId", "NewLogin", "SessionLifecycle")

D = TypeVar("D", bound=msgspec.Struct)

_SUCCESSOR_MS: Final = 60_000 + TOLERATED_SKEW_MS
"""How long a logout with a rotated id finds its successor: longer than any request takes, with clock differences."""
_REPORTED_MS: Final = 3_600_000
"""How long after its time the end of an impersonation is not reported again."""
_MAX_MOVES: Final = 100
_UNREADABLE: Final = SessionRecord(created_at=0, absolute_expires_at=0)
"""Stands for a record that this version of the application cannot decode."""


class NewLogin(msgspec.Struct, frozen=True):
    """The identity and device of a login. `vault` is the sealed data of the login layer.

    `begun` is when the login began, in the store's order (`SessionManager.moment`): if the OP has ended the user's session since
    then, the login is refused.
    """

    identity: Identity
    device: Device
    vault: bytes = b""
    begun: Moment | None = None
    timeouts: Timeouts | None = None
    """Its own lifetimes; None: the configured ones."""
    persistent: bool | None = None
    """Whether its cookie outlives the browser; None: as configured."""
    only_in_place: bool = False
    """Whether the login fails where the session whose place it takes has ended meanwhile: that session lets in one login."""


class NewId:
    """The new id of a session during a call. If the call raises and this is set, the session may have that id."""

    session_id: str | None = None
    begun: Moment | None = None
    """When the login began, while it is unknown whether the OP has ended it."""


class SessionLifecycle(Generic[D]):
    """The operations on sessions of one application."""

    def __init__(  # noqa: PLR0913 - what all sessions of an application share
        self,
        *,
        store: SessionStore,
        codec: DataCodec[D],
        timeouts: Timeouts,
        clock: Clock,
        events: Events,
        limits: LoginLimits,
        marks: RevocationMarks,
        patience: float = 2.0,
        confirm_after: float | None = None,
    ) -> None:
        self.store = store
        self.codec = codec
        self.timeouts = timeouts
        self.clock = clock
        self.events = events
        self._limits = limits
        self.marks = marks
        self._patience = patience
        self.admit_anonymous: Callable[[Device], Awaitable[None]] | None = None
        """Raises when the limit of anonymous sessions for this device is reached."""
        self.impersonation: Impersonation | None = None
        """How long an administrator may act as another user, if at all."""
        self.may_impersonate: Callable[[Identity, Identity], Awaitable[bool]] | None = None
        """Whether an administrator may act as a user now; asked whenever such a session is loaded."""
        self.on_acting: Callable[[Snapshot], None] | None = None
        """Called with each session that is loaded while an administrator acts as another user."""
        self.browser_keeps = inf
        """Milliseconds after which browsers drop any cookie."""
        self.extend_at_once = timeouts.idle * 500
        """If less time than this is left when a session is loaded, it is extended at once; milliseconds."""
        self.confirm_after = inf if confirm_after is None else confirm_after * 1000
        """Milliseconds after which a response is sent only after checking that its session still exists."""
        self.touch_before = timeouts.touch_before
        # The cache of decoded sessions. A snapshot is used only if the store has just returned the same version, expiry and
        # bytes: no session is read from memory alone.
        self._recent: Recent[Snapshot] = Recent()
        self._writer = SessionWriter(store, timeouts, clock, self._recent, patience=patience, on_refused=self._refused)

    async def load(self, session_id: str) -> Snapshot | None:
        """Return the session of an id sent by a browser, or None: an unknown id is never adopted.

        None also for a record that cannot be decoded (`session.undecodable` is emitted); its data is left to the caller, who
        decodes it only once. A session whose owner may no longer act as another user is ended. Raises `StoreUnavailableError`.
        """
        key = session_key(session_id)
        stored = await self.store.load(key)
        if stored is None:
            await self._report_expired(key)
            await self.events.emit("session.unknown", handle=handle_of(key))
            return None
        snapshot = self._recent.get(key)
        if snapshot is None or snapshot.version != stored.version or snapshot.entry != stored.entry:
            try:
                snapshot = snapshot_of(stored)
            except UndecodableError as error:
                await self.report_undecodable(session_id, error)
                return None
            self._recent.put(key, snapshot, len(stored.entry.data))
        if snapshot.record.acting_as is not None:
            if await self.end_refused(snapshot):
                return None
            self._note_acting(snapshot)
        # The store enforces the expiry, which is never later than the absolute timeout: check only if it seems later.
        end = snapshot.record.absolute_expires_at
        return snapshot if end >= snapshot.expires_at or end > self.clock.now() else None

    async def report_undecodable(self, session_id: str, error: UndecodableError) -> None:
        """Emit an event that this version cannot decode a stored session, with the kind of error."""
        handle = handle_of(session_key(session_id))
        await self.events.emit("session.undecodable", handle=handle, reason=type(error.__cause__).__name__)

    async def settle(self, presented: UncertainId) -> tuple[str, Snapshot] | None:
        """Return the live id among those that a browser may have, and its session; no other can become live afterwards.

        Raises `StoreUnavailableError`.
        """
        written = False
        while True:
            for session_id in presented.ids:
                snapshot = await self.load(session_id)
                if snapshot is None:
                    continue
                if session_id in presented.new and presented.begun and await self._is_ended(snapshot, Moment(*presented.begun)):
                    await self.destroy(snapshot)
                    return None
                if written or session_id == presented.new[0]:
                    return session_id, snapshot
                # A rotation of this version may still be in progress; this write makes it fail.
                try:
                    entry = entry_of(snapshot.record, snapshot.expires_at, before=snapshot)
                    version = await self.store.replace(snapshot.key, entry, version=snapshot.version)
                except SessionConflictError:
                    written = True  # by another request
                except SessionGoneError:
                    pass  # it has just arrived
                else:
                    return session_id, Snapshot(snapshot.key, version, snapshot.expires_at, snapshot.record, entry)
                break
            else:
                return None

    async def choose(self, presented: Sequence[str | UncertainId]) -> str | UncertainId | None:
        """Return the only one of several ids that has a live session, or None.

        Ids without a session, and those that were rotated into the live one, are ignored: they remain from before a change of the
        cookie's domain or path. If they have two sessions, one was planted, and neither is used. Raises `StoreUnavailableError`.
        """
        opened: dict[str, str | UncertainId] = {session_key(each): each for each in presented if isinstance(each, str)}
        # An id that is also in an uncertain cookie belongs to that: loading it decides which id the session keeps.
        opened |= {session_key(session_id): each for each in presented if not isinstance(each, str) for session_id in each.ids}
        live: set[str] = set()
        asked: set[str] = set()
        keys = set(opened)
        for _ in range(_MAX_MOVES):
            traces = await trace(self.store, keys)
            asked |= keys
            live |= {key for key, found in traces.items() if found.successor is None}
            keys = {found.successor for found in traces.values() if found.successor is not None} - asked
            if not keys:
                break
        if len(live) == 1:
            return opened.get(live.pop())
        if live:
            await self.events.emit("cookie.rejected", reason="ambiguous")
        return None

    async def has_moved(self, session_ids: Sequence[str]) -> bool:
        """Whether one of these ids was rotated recently. Raises `StoreUnavailableError`."""
        traces = await trace(self.store, [session_key(session_id) for session_id in session_ids])
        return any(found.successor is not None for found in traces.values())

    async def begin(
        self,
        data: bytes,
        *,
        device: Device,
        identity: Identity | None = None,
        login: NewLogin | None = None,
        limit: int = 0,
        new_id: NewId | None = None,
    ) -> tuple[str, Snapshot]:
        """Store a new session under a new id; return the id and the session. Raises what `admit_anonymous` raises.

        `limit`: the most sessions of the user; the oldest ends above it. Default with `identity`: the configured limit.
        """
        new_id = new_id or NewId()
        if login is None and identity is not None:
            login = NewLogin(identity, device)
            async with self._limited(login, None, new_id) as allowed:
                return await self.begin(data, device=device, login=login, limit=allowed, new_id=new_id)
        identity = login.identity if login else None
        if identity is None and self.admit_anonymous is not None:
            await self.admit_anonymous(device)
        now = self.clock.now()
        record = self._logged_in(login, now, data) if login else self._anonymous(device, now, data)
        expires_at = self._expiry(record)
        session_id = new_id.session_id = new_session_id()
        key = session_key(session_id)
        try:
            evicted = await self.store.create(key, entry_of(record, expires_at), limit=limit)
        except StoreUnavailableError as error:
            if await self._find_made(new_id, error) is None:
                raise
            evicted = ()
        await self.events.emit("session.created", handle=handle_of(key), identity=identity)
        await self._report_evicted(evicted, identity)
        return session_id, Snapshot(key, 1, expires_at, record)

    def write(self, snapshot: Snapshot, change: Change) -> Coroutine[Any, Any, Snapshot]:
        """Apply a change to the newest copy of the session (see `SessionWriter.write`)."""
        return self._writer.write(snapshot, change)

    async def touch(self, snapshot: Snapshot) -> Snapshot:
        """Extend the idle timeout of a session that was only read, if the touch interval has passed; return the session.

        An outage is ignored: the request has its data, and a touch acknowledges nothing.
        """
        if not self.touch_due(snapshot):
            return snapshot
        expires_at = self.expiry_after_use(snapshot)
        try:
            await self.store.touch(snapshot.key, expires_at)
        except StoreUnavailableError:
            return snapshot
        return msgspec.structs.replace(snapshot, expires_at=expires_at)

    async def confirm(self, snapshot: Snapshot) -> Snapshot:
        """Reload a session that was loaded a while ago, also under a new id.

        Raises `SessionGoneError` if it has ended or another login has replaced it; `StoreUnavailableError`.
        """
        key = snapshot.key
        for _ in range(_MAX_MOVES):
            newest = await self._newest(key, any_version=False)
            if newest is not None:
                if key == snapshot.key:
                    return snapshot
                if lineage_of(newest) == lineage_of(snapshot):
                    return Snapshot(key, STALE, newest.expires_at, newest.record)
                break
            found = (await trace(self.store, [key])).get(key)
            if found is None or found.successor is None:
                break
            key = found.successor
        await self.events.emit("session.gone", handle=handle_of(snapshot.key))
        raise SessionGoneError

    def touch_due(self, snapshot: Snapshot) -> bool:
        """Whether using the session now should extend it."""
        if not snapshot.record.idle and self.clock.now() < snapshot.expires_at - self.touch_before:  # nearly always
            return False
        record = snapshot.record
        return self.timeouts.with_idle(record.idle).touch_due(self.clock.now(), snapshot.expires_at, record.absolute_expires_at)

    def expiry_after_use(self, snapshot: Snapshot) -> int:
        """Return the expiry after a use now: extended only if a touch is due."""
        if self.touch_due(snapshot):
            return self._expiry(snapshot.record)
        return snapshot.expires_at

    async def regenerate(self, snapshot: Snapshot, change: Change, *, new_id: NewId | None = None) -> tuple[str, Snapshot]:
        """Give the session a new id in one atomic step; creation time, expiry and login stay."""
        session_id, new, _ = await self._rotate(snapshot, change, limit=0, new_id=new_id or NewId())
        if snapshot.record.identity is None:
            await self.inherit_revocation([snapshot.key], new.key)
        await self.events.emit("session.regenerated", handle=handle_of(new.key), identity=new.record.acts_for)
        return session_id, new

    async def impersonate(
        self, snapshot: Snapshot | None, identity: Identity, *, change: Change, first: Callable[[bytes], bytes], new_id: NewId
    ) -> tuple[str, Snapshot]:
        """Let the user of a session act as `identity`, under a new id, in one step; `first` makes the data it begins with.

        The session stays the administrator's own: what ends that one ends this. Raises `LoginRequiredError`,
        `StepUpRequiredError`, `ForbiddenError`, `SessionGoneError`, and `ConfigurationError` where it is switched off.
        """
        rules = self.impersonation
        if rules is None:
            msg = "impersonation is switched off: SessionConfig(impersonation=Impersonation(allow=...))"
            raise ConfigurationError(msg)
        if snapshot is None or (owner := snapshot.record.identity) is None:
            raise LoginRequiredError
        now = self.clock.now()
        try:
            if snapshot.record.acting_as is not None:
                raise ImpersonationForbiddenError
            if owner.auth_time is None or now // 1000 - owner.auth_time > rules.login_within:
                raise StepUpRequiredError(max_age=rules.login_within)
            if self.may_impersonate is None or not await self.may_impersonate(owner, identity):
                raise ForbiddenError
        except AccessDeniedError as error:
            handle = handle_of(snapshot.key)
            await self.events.emit("access.denied", handle=handle, identity=owner, reason=error.code, target=identity.user_key)
            raise
        # The provider's claims about its user's login do not prove this one.
        user = Identity(issuer=identity.issuer, subject=identity.subject)
        begun_with, number = first(self._blank()), randbits(63)
        end = min(snapshot.record.absolute_expires_at, now + rules.seconds * 1000)

        def begin(record: SessionRecord) -> SessionRecord:
            acting_as = ActingAs(user, now, record.absolute_expires_at, change(record).data, number)
            return msgspec.structs.replace(record, data=msgspec.Raw(begun_with), absolute_expires_at=end, acting_as=acting_as)

        started = partial(self.events.emit, "impersonation.started", identity=user, actor=owner, until=end)
        try:
            session_id, new, _ = await self._rotate(snapshot, begin, limit=0, new_id=new_id)
        except StoreUnavailableError:
            if new_id.session_id is not None:  # it may have begun, and no later request emits an event for that
                await started(handle=handle_of(session_key(new_id.session_id)), reason="unanswered")
            raise
        self._note_acting(new)
        await started(handle=handle_of(new.key))
        return session_id, new

    async def end_impersonation(self, snapshot: Snapshot, *, new_id: NewId) -> tuple[str, Snapshot]:
        """Restore an administrator's own session under a new id, in one step. Raises `SessionGoneError`."""
        session_id, new, _ = await self._rotate(snapshot, SessionRecord.without_impersonation, limit=0, new_id=new_id)
        await self.report_acting_ended(snapshot, "stopped", handle=handle_of(new.key))
        return session_id, new

    async def login(
        self,
        snapshot: Snapshot | None,
        login: NewLogin,
        *,
        change: Change,
        data: bytes,
        first: Callable[[bytes], bytes],
        unreadable: Sequence[str] = (),
        new_id: NewId | None = None,
    ) -> tuple[str, Snapshot]:
        """Log a user in under a new id, and restart the lifetimes.

        The data of an anonymous session, or of one of the same user, is kept with `change` applied; without a session, `data` is
        used. Data of another user's session is dropped, because browsers are shared. `first` is then applied; if it raises,
        nothing changes. `unreadable` are ids of the request without a session: records there, perhaps of another version of the
        application, are deleted.

        Raises `SessionGoneError` when the OP has ended the login or, for a login that has begun earlier, the session was revoked
        meanwhile, and `SessionLimitError`.
        """
        await self._refuse_ended(login.identity, login.begun)  # before anything of the session the browser has is touched
        new_id = new_id or NewId()
        log_in = partial(
            self._log_in, snapshot, login, change=change, data=data, first=first, unreadable=unreadable, new_id=new_id
        )
        if (fixed := self._limits.fixed) is not None:
            return await log_in(limit=fixed)
        async with self._limited(login, snapshot, new_id) as limit:
            return await log_in(limit=limit)

    @asynccontextmanager
    async def _limited(self, login: NewLogin, snapshot: Snapshot | None, new_id: NewId) -> AsyncIterator[int]:
        """Let a login happen inside, within the limit of the user's sessions (see `LoginLimits.admitted`)."""
        try:
            async with self._limits.admitted(login, snapshot) as limit:
                yield limit
        except SessionLimitError:
            if new_id.session_id is not None:
                key, new_id.session_id = session_key(new_id.session_id), None
                for ended in await self.store.delete(key):
                    await self.events.emit("session.destroyed", handle=handle_of(ended), reason="limit")
            raise

    async def _log_in(
        self,
        snapshot: Snapshot | None,
        login: NewLogin,
        *,
        change: Change,
        data: bytes,
        first: Callable[[bytes], bytes],
        unreadable: Sequence[str],
        new_id: NewId,
        limit: int,
    ) -> tuple[str, Snapshot]:
        """Log in under a limit of the user's sessions; above it the oldest ends."""
        identity, begun = login.identity, login.begun
        now = self.clock.now()
        new_id.begun = begun
        found = [snapshot] if snapshot is not None else await self._find_unreadable(unreadable)
        current = found[0] if found else None
        other = data if snapshot is None else self._blank()

        def log_in(record: SessionRecord) -> SessionRecord:
            mine = record is not _UNREADABLE and (record.identity is None or identity.is_same_user(record.identity))
            kept = other
            if mine:  # what was assigned while acting as another user is not the administrator's
                kept = bytes((change(record) if record.acting_as is None else record.without_impersonation()).data)
                self.codec.decode(kept)
            return msgspec.structs.replace(
                self._logged_in(login, now, first(kept)),
                # Unknown fields of the session are kept; unknown fields of the former login and device are dropped.
                newer=record.newer.without_below() if mine and record.newer is not None else None,
            )

        entered: tuple[str, Snapshot] | None = None
        if current is not None:
            try:
                session_id, new, evicted = await self._rotate(current, log_in, limit=limit, new_id=new_id, any_version=True)
            except SessionGoneError as error:
                # The authentication of a login that has begun earlier may be older than a revocation.
                error.revoked = not login.only_in_place and begun is not None and await self.was_revoked([current.key])
                if login.only_in_place or error.revoked:
                    raise
                data = other  # it ended meanwhile: its data is dropped, and the login starts fresh
            else:
                if snapshot is None:
                    await self.events.emit("session.destroyed", handle=handle_of(current.key), reason="unreadable")
                await self.report_acting_ended(current, "login")
                await self._report_evicted(evicted, identity)
                entered = session_id, new
        if entered is None:
            entered = await self.begin(first(data), device=login.device, login=login, limit=limit, new_id=new_id)
        for another in found[1:]:  # sessions of several cookies are merged into one
            await self._end_unreadable(another.key)
        await self._refuse_ended_meanwhile(new_id, entered[1], begun)
        await self.events.emit("login.succeeded", handle=handle_of(entered[1].key), identity=identity)
        return entered

    async def destroy(self, snapshot: Snapshot) -> None:
        """End a session and its successors. Idempotent."""
        await self.store.delete(snapshot.key)
        await self.events.emit("session.destroyed", handle=handle_of(snapshot.key), identity=snapshot.record.identity)
        await self.report_acting_ended(snapshot, "logout")

    async def was_revoked(self, keys: Sequence[str]) -> bool:
        """Whether a session of one of these keys was revoked (see `revocation_marks`)."""
        return await self.marks.any_of(keys)

    async def inherit_revocation(self, keys: Sequence[str], heir: str) -> None:
        """Copy the mark of a revoked session to the anonymous session `heir` of the same browser.

        The browser has a new cookie from now on, and its next login must still ask for credentials.
        """
        with suppress(StoreUnavailableError):
            if await self.was_revoked(keys):
                await self.marks.leave([heir])

    async def end_unreadable(self, session_id: str) -> None:
        """End the record of an id that this version cannot decode: another version may be able to."""
        await self._end_unreadable(session_key(session_id))

    async def _end_unreadable(self, key: str) -> None:
        for ended in await self.store.delete(key):
            await self.events.emit("session.destroyed", handle=handle_of(ended), reason="unreadable")

    async def end_refused(self, snapshot: Snapshot) -> bool:
        """End a session whose owner may no longer act as another user; return whether it was.

        Also if the rule was changed or removed. The whole session ends: the next login decides what its owner may still do.
        """
        owner, acting_as = snapshot.record.identity, snapshot.record.acting_as
        if acting_as is None:
            return False
        if self.may_impersonate is not None and owner is not None and await self.may_impersonate(owner, acting_as.identity):
            return False
        for key in await self.store.delete(snapshot.key):
            await self.events.emit("session.destroyed", handle=handle_of(key), identity=owner, reason="impersonation")
        await self.report_acting_ended(snapshot, "refused")
        return True

    async def report_acting_ended(self, snapshot: Snapshot, reason: str, *, handle: str | None = None) -> None:
        """Emit `impersonation.ended` for a session that has ended, if it was one: once, whichever process sees it first."""
        record = snapshot.record
        if (acting_as := record.acting_as) is None:
            return
        try:
            name = f"impersonation-ended:{acting_as.number:x}"
            first = await self.store.claim(name, record.absolute_expires_at + _REPORTED_MS)
        except StoreUnavailableError:  # better reported twice than not at all
            first = True
        if first:
            await self.events.emit(
                "impersonation.ended",
                handle=handle or handle_of(snapshot.key),
                identity=acting_as.identity,
                actor=record.identity,
                reason=reason,
            )

    async def _report_expired(self, key: str) -> None:
        """Report an impersonation whose time is over, if this process has served it."""
        known = self._recent.get(key)
        if known is not None and known.record.acting_as is not None and known.record.absolute_expires_at <= self.clock.now():
            await self.report_acting_ended(known, "expired")

    def _note_acting(self, snapshot: Snapshot) -> None:
        if self.on_acting is not None:
            self.on_acting(snapshot)

    async def _refused(self, key: str, error: SessionGoneError | SessionConflictError) -> None:
        """Emit an event for a write that was not made."""
        if isinstance(error, SessionGoneError):
            await self.events.emit("session.gone", handle=handle_of(key))
        else:
            await self.events.emit("session.conflict", handle=handle_of(key), reason=",".join(error.fields) or "version")

    async def _rotate(
        self, snapshot: Snapshot, change: Change, *, limit: int, new_id: NewId, any_version: bool = False
    ) -> tuple[str, Snapshot, tuple[str, ...]]:
        """Move the changed session to a new id; retried on the newest copy, so that no concurrent write is lost.

        `any_version`: also if another version of the application has written data that cannot be decoded here.
        """
        current: Snapshot | None = snapshot
        if snapshot.version == STALE:
            current = await self._newest(snapshot.key, any_version=any_version)
        give_up = monotonic() + self._patience
        while monotonic() < give_up:
            if current is None:
                await self.events.emit("session.gone", handle=handle_of(snapshot.key))
                raise SessionGoneError
            try:
                record = change(current.record)
            except UndecodableError:
                current = msgspec.structs.replace(current, record=_UNREADABLE) if any_version else None
                continue
            now = self.clock.now()
            expires_at = self._expiry(record)
            session_id = new_id.session_id = new_session_id(after=current.key)
            key = session_key(session_id)
            try:
                evicted = await self.store.rotate(
                    current.key,
                    key,
                    entry_of(record, expires_at),
                    version=current.version,
                    successor_until=now + _SUCCESSOR_MS,
                    limit=limit,
                )
            except SessionConflictError:
                new_id.session_id = None
                current = await self._newest(snapshot.key, any_version=any_version)
            except SessionGoneError:
                new_id.session_id = current = None
            except StoreUnavailableError as error:
                if (made := await self._find_made(new_id, error)) is None:
                    raise
                return session_id, Snapshot(key, made.version, expires_at, record), ()
            else:
                return session_id, Snapshot(key, 1, expires_at, record), evicted
        msg = "other requests kept changing the session"
        raise SessionConflictError(msg)

    async def _find_made(self, new_id: NewId, error: StoreUnavailableError) -> StoredSession | None:
        """Return the result of a step whose answer was lost: only this request knows the id. None if unknown."""
        if error.not_applied or new_id.session_id is None:
            new_id.session_id = None
            return None
        try:
            return await self.store.load(session_key(new_id.session_id))
        except StoreUnavailableError:
            return None

    async def _newest(self, key: str, *, any_version: bool) -> Snapshot | None:
        stored = await self.store.load(key)
        try:
            return snapshot_of(stored) if stored else None
        except UndecodableError:
            return Snapshot(key, stored.version, stored.entry.expires_at, _UNREADABLE) if stored and any_version else None

    async def _find_unreadable(self, session_ids: Sequence[str]) -> list[Snapshot]:
        """Return the records of exactly these ids, without successors."""
        found = []
        for session_id in session_ids:
            stored = await self.store.load(session_key(session_id))
            if stored is not None:
                found.append(Snapshot(stored.key, stored.version, stored.entry.expires_at, _UNREADABLE))
        return found

    def _logged_in(self, login: NewLogin, now: int, data: bytes) -> SessionRecord:
        timeouts = login.timeouts or self.timeouts
        return SessionRecord(
            created_at=now,
            absolute_expires_at=timeouts.absolute_expiry(now),
            data=msgspec.Raw(data),
            identity=login.identity,
            logged_in_at=now,
            device=login.device,
            vault=login.vault,
            idle=login.timeouts.idle if login.timeouts else 0,
            persistent=login.persistent,
        )

    def _anonymous(self, device: Device, now: int, data: bytes) -> SessionRecord:
        absolute_expires_at = self.timeouts.absolute_expiry(now)
        return SessionRecord(created_at=now, absolute_expires_at=absolute_expires_at, data=msgspec.Raw(data), device=device)

    def _expiry(self, record: SessionRecord) -> int:
        """Return the expiry of a session that is used now."""
        return self.timeouts.with_idle(record.idle).expiry(self.clock.now(), record.absolute_expires_at)

    def _blank(self) -> bytes:
        return self.codec.encode(self.codec.fresh())

    async def _refuse_ended(self, identity: Identity, begun: Moment | None) -> None:
        """Raise `SessionGoneError` when the OP ended this user's sessions after the login began."""
        if begun is not None and await was_ended_since(self.store, identity, begun):
            msg = "the identity provider ended this login"
            raise SessionGoneError(msg)

    async def _refuse_ended_meanwhile(self, new_id: NewId, new: Snapshot, begun: Moment | None) -> None:
        """Look for the mark again, after the session is stored.

        If that fails, the browser's next request looks: until then only the uncertain cookie opens the session.
        """
        if begun is None or new.record.identity is None:
            return
        try:
            await self._refuse_ended(new.record.identity, begun)
        except (SessionGoneError, asyncio.CancelledError):  # a cancelled request has no response to set a cookie
            await self.store.delete(new.key)
            new_id.session_id = None
            raise
        new_id.begun = None

    async def _is_ended(self, snapshot: Snapshot, begun: Moment) -> bool:
        """Whether the OP has ended a login that began at `begun`; also true if that is no longer known."""
        record = snapshot.record
        if record.identity is None:
            return False
        return self.clock.now() - record.logged_in_at >= CERTAIN_MS or await was_ended_since(self.store, record.identity, begun)

    async def _report_evicted(self, evicted: tuple[str, ...], identity: Identity | None) -> None:
        if not evicted:
            return
        await self.marks.leave(evicted, user=identity)
        async for key in in_turns(evicted):
            await self.events.emit("session.evicted", handle=handle_of(key), identity=identity)
