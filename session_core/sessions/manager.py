"""Lists, ends and counts sessions of any user."""

from __future__ import annotations

import asyncio
from bisect import insort
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Final

import msgspec

from session_core.calls import Calls
from session_core.clock import TOLERATED_SKEW_MS
from session_core.concurrency import in_turns, together
from session_core.errors import StoreUnavailableError
from session_core.identity import Identity, op_session_key
from session_core.ids import handle_of
from session_core.sessions.logout_marks import leave_mark, without_sid_key
from session_core.sessions.notes import is_note
from session_core.sessions.record import Device, UndecodableError
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.snapshot import Snapshot, snapshot_of
from session_core.sessions.stats import SessionStats, StatsCounter
from session_core.sessions.store_order import Moment, current_moment
from session_core.stores.base import SessionIndex

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from session_core.clock import Clock
    from session_core.events import Events
    from session_core.sessions.timeouts import Timeouts
    from session_core.stores.base import SessionStore, StoredSession

__all__ = ("SessionManager", "SessionStats", "SessionSummary")

_AT_ONCE: Final = 8
"""Sessions that are ended at once by their keys: a pool of connections has some left for requests."""


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The public facts about one session, for its user or an operator. Times are Unix milliseconds.

    `handle` names it in lists and URLs and is not a secret. `last_seen_at` is exact to the touch interval.
    """

    handle: str
    identity: Identity | None
    created_at: int
    last_seen_at: int
    idle_expires_at: int
    absolute_expires_at: int
    device: Device
    size: int
    """Bytes of the stored record."""
    acting_as: Identity | None = None
    """The user as whom the owner of the session, an administrator, acts now."""


class SessionManager:
    """Operations on all sessions, independent of requests. Every method may raise `StoreUnavailableError`."""

    def __init__(
        self,
        store: SessionStore,
        timeouts: Timeouts,
        clock: Clock,
        events: Events,
        marks: RevocationMarks,
        calls: Calls | None = None,
    ) -> None:
        self.store = store
        self.calls = calls or Calls()
        self.clock = clock
        self.events = events
        self.timeouts = timeouts
        self.acting_ended: Callable[[Snapshot, str], Awaitable[None]] | None = None
        """Called with each session ended here in which an administrator acted as another user, and the reason; None where no
        administrator may."""
        self.marks = marks
        """The marks that revocations leave."""

    async def list_for(self, identity: Identity) -> list[SessionSummary]:
        """Return the live sessions of a user, the most recently used first."""
        summaries: list[SessionSummary] = []
        async for stored in in_turns(await self.store.find(SessionIndex(user=identity.user_key))):
            if (summary := self._summary(stored)) is not None:
                insort(summaries, summary, key=_by_last_use)  # sorting thousands at once would keep others waiting
        return summaries

    async def revoke(self, handle: str, *, identity: Identity, reason: str = "revoked") -> bool:
        """End the session that `handle` names, if it is one of this user's; return whether there was one."""
        # Only the user's own sessions are searched: another user's handle is not found.
        async for stored in in_turns(await self.store.find(SessionIndex(user=identity.user_key))):
            if handle_of(stored.key) == handle:
                return bool(await self._revoke_one(stored, reason, identity))
        return False

    async def revoke_any(self, handle: str, *, reason: str = "operator") -> bool:
        """End the session that `handle` names, of any user. For operators: reads every session."""
        async for stored in self._scan():
            if handle_of(stored.key) == handle:
                summary = self._summary(stored)
                return bool(await self._revoke_one(stored, reason, summary.identity if summary is not None else None))
        return False

    async def revoke_all(self, identity: Identity, *, keep: str | None = None, reason: str = "revoked") -> int:
        """End all sessions of a user, except the one whose key (`SessionHandle.key`) is `keep`; return how many.

        An outage in between may leave some: then `session.revocation_failed` is emitted, and a second call ends them.
        """
        index = SessionIndex(user=identity.user_key)
        found: Sequence[StoredSession] = ()
        with suppress(StoreUnavailableError):  # a revocation does not depend on its marks and its report
            found = await self.store.find(index)
        ended = await self._revoke(
            [stored for stored in found if stored.key != keep],
            lambda: self.store.delete_by(index, keep=keep),
            reason,
            identity,
        )
        return len(ended)

    async def moment(self) -> Moment:
        """Return the current moment, for `SessionHandle.login(begun=...)` of a login that starts now and finishes later."""
        return await current_moment(self.store)

    async def end_op_session(
        self, issuer: str, sid: str, *, subject: str | None = None, iat: int | None = None, reason: str = "op_logout"
    ) -> int:
        """End all sessions that belong to one session at the OP; return how many.

        With `subject` also that user's sessions without `sid`, which may belong to it.

        A concurrent login of that OP session is refused as well. `iat` is the time of the logout in Unix seconds by the OP's
        clock: with it, a login with a later `auth_time` continues. The same `sid` of another issuer is not affected.
        """
        key = op_session_key(issuer, sid)
        await leave_mark(self.store, key, self.clock.now(), iat=iat)
        user = None if subject is None else Identity(issuer=issuer, subject=subject)
        if user is not None:
            await leave_mark(self.store, without_sid_key(user), self.clock.now(), iat=iat)
        index = SessionIndex(op_session=key)
        acting = await self._find_acting(index if user is None else SessionIndex(user=user.user_key))
        async with self._reported(reason, user):
            ended = await self.store.delete_by(index)
            if user is not None:
                ended += await self._end_without_sid(user)
        await self._report(ended, reason, user, acting)
        return len(ended)

    async def end_user(self, identity: Identity, *, iat: int | None = None, reason: str = "op_logout") -> int:
        """End all sessions of a user by order of the OP; return how many.

        A concurrent login is refused as well; `iat` as in `end_op_session`.
        """
        await leave_mark(self.store, identity.user_key, self.clock.now(), iat=iat)
        index = SessionIndex(user=identity.user_key)
        acting = await self._find_acting(index)
        async with self._reported(reason, identity):
            ended = await self.store.delete_by(index)
        await self._report(ended, reason, identity, acting)
        return len(ended)

    async def revoke_before(self, moment: int, *, reason: str = "operator") -> int:
        """End all sessions that began, or were last logged in, before `moment` (Unix milliseconds); return how many.

        Also ends sessions that cannot be decoded, because they may be older. Reads every session, repeatedly until none is left,
        because a session with a new id may escape a pass. For use after restoring a backup.
        """
        total = 0
        while ended := await self._end_before(moment, reason):
            total += ended
        return total

    async def needs_authentication(self, identity: Identity) -> bool:
        """Whether sessions of this user were revoked since the user authenticated, or perhaps since then.

        For the login of a client whose ended session cannot be known. Raises `StoreUnavailableError`.
        """
        revoked_at = await self.marks.last_of(identity)
        if revoked_at is None or identity.auth_time is None:
            return revoked_at is not None
        return identity.auth_time * 1000 <= revoked_at + TOLERATED_SKEW_MS

    async def revoked_since(self, identity: Identity, moment: int) -> bool:
        """Whether sessions of this user were revoked after `moment` (Unix milliseconds). Raises `StoreUnavailableError`."""
        revoked_at = await self.marks.last_of(identity)
        return revoked_at is not None and revoked_at > moment

    async def claim(self, name: str, *, seconds: int) -> bool:
        """Return True for exactly one caller per `name` within `seconds`, over all processes: single use."""
        return await self.store.claim(name, self.clock.now() + seconds * 1000)

    async def all(self) -> AsyncIterator[SessionSummary]:
        """Iterate over all live sessions that can be decoded, for operators."""
        async for stored in self._scan():
            summary = self._summary(stored)
            if summary is not None:
                yield summary

    async def stats(self) -> SessionStats:
        """Count the live sessions. Reads every session, in bounded memory (see `StatsCounter`)."""
        counter = StatsCounter(self.clock.now())
        async for stored in self._scan():
            summary = self._summary(stored)
            if summary is None:
                counter.add_undecodable(len(stored.entry.data))
            else:
                counter.add(summary.size, summary.identity, summary.last_seen_at)
        return counter.result()

    async def prune(self, *, batch: int = 1000) -> int:
        """Remove expired records from the store, batch by batch; return how many. Safe in many processes at once.

        Pauses after each batch for as long as it took, so that requests have at least half of the store's time.
        """
        removed = 0
        while True:
            began = perf_counter()
            count = await self.store.delete_expired(batch)
            removed += count
            if not count:
                break
            await asyncio.sleep(perf_counter() - began)
        if removed:
            await self.events.emit("session.swept", count=removed)
        return removed

    async def ping(self) -> None:
        """Return when the store can read and write; raise `StoreUnavailableError` when not."""
        await self.store.ping()

    async def _end_without_sid(self, user: Identity) -> tuple[str, ...]:
        ended: list[str] = []

        async def end(stored: StoredSession) -> None:
            ended.extend(await self.store.delete(stored.key))

        number = -1
        while number < len(ended):  # until a pass ends none: a session with a new id may escape a list that is read in pages
            number, found = len(ended), []
            async for stored in in_turns(await self.store.find(SessionIndex(user=user.user_key))):
                summary = self._summary(stored)
                if summary is not None and summary.identity is not None and summary.identity.sid is None:
                    found.append(stored)
            for start in range(0, len(found), _AT_ONCE):
                await together(*map(end, found[start : start + _AT_ONCE]))
        return tuple(ended)

    async def _end_before(self, moment: int, reason: str) -> int:
        """End the sessions from before `moment` that one pass finds, some at a time; return how many."""
        number = 0
        found: list[StoredSession] = []

        async def end(stored: StoredSession, marked: int) -> int:
            summary = self._summary(stored)
            return len(await self._revoke_one(stored, reason, summary.identity if summary else None, marked=marked))

        async for stored in self._scan():
            summary = self._summary(stored)
            if summary is None or summary.created_at < moment:
                found.append(stored)
            if len(found) == _AT_ONCE:
                number += sum(await together(*(end(each, number) for each in found)))
                found = []
        return number + sum(await together(*(end(each, number) for each in found)))

    async def _scan(self) -> AsyncIterator[StoredSession]:
        """Iterate over all sessions, without the library's own notes."""
        async for stored in self.store.scan():
            if not is_note(stored.entry.data):
                yield stored

    def _summary(self, stored: StoredSession) -> SessionSummary | None:
        try:
            record = snapshot_of(stored).record
        except UndecodableError:
            return None
        return SessionSummary(
            handle=handle_of(stored.key),
            identity=record.identity,
            created_at=record.created_at,
            last_seen_at=max(record.created_at, self.timeouts.with_idle(record.idle).last_seen(stored.entry.expires_at)),
            idle_expires_at=stored.entry.expires_at,
            absolute_expires_at=record.absolute_expires_at,
            device=record.device,
            size=len(stored.entry.data),
            acting_as=record.acting_as.identity if record.acting_as is not None else None,
        )

    async def _find_acting(self, index: SessionIndex) -> Mapping[str, Snapshot]:
        """Return the sessions of an index in which an administrator acts as another user, before they are ended."""
        found: Sequence[StoredSession] = ()
        if self.acting_ended is not None:
            with suppress(StoreUnavailableError):  # a revocation does not depend on its report
                found = await self.store.find(index)
        return (await _acting_and_end(found))[0]

    async def _revoke_one(
        self, stored: StoredSession, reason: str, identity: Identity | None, *, marked: int = 0
    ) -> tuple[str, ...]:
        return await self._revoke([stored], lambda: self.store.delete(stored.key), reason, identity, marked=marked)

    async def _revoke(
        self,
        found: Sequence[StoredSession],
        end: Callable[[], Awaitable[tuple[str, ...]]],
        reason: str,
        identity: Identity | None,
        *,
        marked: int = 0,
    ) -> tuple[str, ...]:
        """End the sessions that were found, also under new ids; mark and report them.

        Marked before they end: whatever fails afterwards, single sign-on does not log their browsers in again. `marked`: how many
        this revocation has marked already.
        """
        acting, until = await _acting_and_end(found)
        keys = [stored.key for stored in found]
        if not await self.marks.leave(keys, user=identity, until=until, before=marked):
            keys = []
        async with self._reported(reason, identity, handle=handle_of(found[0].key) if len(found) == 1 else None):
            ended = await end()
        if left := set(ended).difference(keys):
            await self.marks.leave(list(left), user=identity, until=until, before=marked + len(keys))
        await self._report(ended, reason, identity, acting)
        return ended

    @asynccontextmanager
    async def _reported(self, reason: str, identity: Identity | None, *, handle: str | None = None) -> AsyncIterator[None]:
        """Report that an outage has interrupted a revocation: which sessions have ended is unknown then."""
        try:
            yield
        except StoreUnavailableError:
            await self.events.emit("session.revocation_failed", handle=handle, identity=identity, reason=reason)
            raise

    async def _report(
        self, keys: tuple[str, ...], reason: str, identity: Identity | None, acting: Mapping[str, Snapshot]
    ) -> None:
        """Emit the events of ended sessions."""
        async for key in in_turns(keys):
            await self.events.emit("session.revoked", handle=handle_of(key), identity=identity, reason=reason)
            if key in acting and self.acting_ended is not None:
                await self.acting_ended(acting[key], reason)


def _by_last_use(summary: SessionSummary) -> tuple[int, str]:
    return -summary.last_seen_at, summary.handle


async def _acting_and_end(found: Sequence[StoredSession]) -> tuple[Mapping[str, Snapshot], int]:
    """Return the sessions in which an administrator acts as another user, and when the last of all would have ended.

    A login may have chosen a longer life than the configured one.
    """
    acting: dict[str, Snapshot] = {}
    latest = 0
    async for stored in in_turns(found):
        with suppress(UndecodableError):
            snapshot = snapshot_of(stored)
            if snapshot.record.acting_as is not None:
                acting[stored.key] = snapshot
            latest = max(latest, snapshot.record.without_impersonation().absolute_expires_at)
    return acting, latest
