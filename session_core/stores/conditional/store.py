"""Sessions in an engine with conditional writes: the whole store contract, across all processes, with only these writes.

Each change, of one document or of several (a rotation, a login with a limit, a revocation), is one step by `Transactions`. The
lists of a user's and of an OP session's keys never lack a live session; they may contain ended ones, which are removed when
found.

No step starts after its deadline, and neither does its deciding write. If that write is in progress at the deadline, the next
reader aborts the step, and the write fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final

import msgspec

from session_core.clock import Clock, SystemClock
from session_core.concurrency import back_off
from session_core.errors import ConfigurationError, SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.stores.announcements import Trace
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession
from session_core.stores.conditional.documents import ConditionalDocuments
from session_core.stores.conditional.format import (
    FOREVER,
    Claim,
    Corrupt,
    KeyList,
    SessionDocument,
    list_name,
    list_names,
)
from session_core.stores.conditional.transactions import Change, Found, Transactions
from session_core.stores.deadlines import check_deadline
from session_core.stores.document.calls import finished
from session_core.stores.document.listing import ListedStore, Sweeper
from session_core.stores.document.locks import NamedLocks

__all__ = ("ConditionalStore",)

_UNREADABLE_MS: Final = 60_000
_AT_ONCE: Final = 16
"""How many sessions end in one transaction."""
_PRUNE_FROM: Final = 32
"""A list is not searched for sessions that have ended while it is shorter than this."""


class ConditionalStore(ListedStore):
    """Any `ConditionalDocuments` as a store. `capabilities` must say what the engine behind it is."""

    def __init__(self, documents: ConditionalDocuments, capabilities: StoreCapabilities, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._documents = documents
        self._transactions = Transactions(documents, self._clock)
        self._locks = NamedLocks()
        sweeper = Sweeper(documents, self._clock, self._transactions.remove_if_over, kinds="scuot", uncounted="uot")
        super().__init__(documents, capabilities, sweeper)

    async def open(self) -> None:
        """See `SessionStore.open`. Raises `ConfigurationError` for an engine that does not keep the conditions of writes."""
        try:
            await self._documents.open()
            problem = await self._transactions.probe()
        except BaseException:
            await self._documents.close()
            raise
        if problem:
            await self._documents.close()
            msg = f"the engine that stores the sessions has no conditional writes: {problem}"
            raise ConfigurationError(msg)

    async def ping(self) -> None:
        """See `SessionStore.ping`: a document is written, read and removed."""
        if problem := await self._transactions.probe():
            msg = f"the engine that stores the sessions has no conditional writes: {problem}"
            raise StoreUnavailableError(msg)

    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`. A record that cannot be read is returned without data."""
        (found,) = await self._transactions.read([f"s:{key}"])
        return self._stored(key, found)

    @finished
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        ended: list[str] = []
        async with self._turn(entry.user):
            for attempt in count():
                place, *lists = await self._transactions.take([f"s:{key}", *list_names(entry)])
                self._refuse_taken(place)
                changes: list[Change] = []
                listed = await self._enlist(changes, lists, entry, key, limit=limit, ended=ended)
                changes.append((place, _record(entry, 1, listed)))
                check_deadline(begun=bool(ended))
                if await self._transactions.commit(changes):
                    return (*ended, *_ended(changes))
                await back_off(attempt)
        raise AssertionError

    @finished
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""
        for attempt in count():
            (found,) = await self._transactions.take([f"s:{key}"])
            before = self._expect(found, version)
            changes: list[Change] = []
            listed = before.listed_until
            if (entry.user, entry.op_session) != (before.user, before.op_session) or entry.expires_at > listed:
                listed = await self._enlist(changes, await self._transactions.take(list_names(entry)), entry, key)
            changes.append((found, _record(entry, version + 1, listed)))
            if await self._transactions.commit(changes):
                return version + 1
            await back_off(attempt)
        raise AssertionError

    @finished
    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        ended: list[str] = []
        async with self._turn(entry.user):
            for attempt in count():
                old, new, *lists = await self._transactions.take([f"s:{old_key}", f"s:{new_key}", *list_names(entry)])
                self._expect(old, version)
                self._refuse_taken(new)
                changes: list[Change] = []
                listed = await self._enlist(changes, lists, entry, new_key, leaving=old_key, limit=limit, ended=ended)
                record = _record(entry, 1, listed)
                moved = msgspec.structs.replace(record, until=successor_until, data=b"", moved_to=new_key)
                changes += [(old, moved), (new, record)]
                check_deadline(begun=bool(ended))
                if await self._transactions.commit(changes):
                    return (*ended, *_ended(changes))
                await back_off(attempt)
        raise AssertionError

    @finished
    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        for attempt in count():
            (found,) = await self._transactions.take([f"s:{key}"])
            before = self._live(found)
            if not isinstance(before, SessionDocument):
                return False
            if expires_at <= before.until:
                return True
            entry = msgspec.structs.replace(_entry(before), expires_at=expires_at)
            changes: list[Change] = []
            listed = before.listed_until
            if expires_at > listed:
                listed = await self._enlist(changes, await self._transactions.take(list_names(entry)), entry, key)
            changes.append((found, _record(entry, before.version, listed)))
            if await self._transactions.commit(changes):
                return True
            await back_off(attempt)
        raise AssertionError

    @finished
    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`. The successor of a rotated session is followed until it expires."""
        seen: set[str] = set()
        current: str | None = key
        while current is not None and current not in seen:
            for attempt in count():
                (found,) = await self._transactions.take([f"s:{current}"])
                live = self._live(found)
                if live is None:
                    seen.add(current)
                    current = self._successor(found)
                    break
                if await self._transactions.commit([(found, None)]):
                    if isinstance(live, SessionDocument):
                        await self._strike(list_names(live), current)
                    return (current,)
                await back_off(attempt)
        return ()

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        name = list_name(index)
        while True:
            (listed,) = await self._transactions.read([name])
            keys = _keys(listed)
            found = await self._transactions.read([f"s:{key}" for key in keys])
            of_index = {key: each for key, each in zip(keys, found, strict=True) if self._is_of(each, index)}
            if len(of_index) < len(keys):
                (again,) = await self._transactions.read([name])
                if again.version != listed.version:
                    continue  # some were rotated meanwhile, and would be missed
                await self._prune(again, list(of_index))
            return [stored for key, each in of_index.items() if (stored := self._stored(key, each)) is not None]

    @finished
    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`. Very many sessions end in several steps."""
        ended: list[str] = []
        for attempt in count():
            (listed,) = await self._transactions.take([list_name(index)])
            keys = [key for key in _keys(listed) if key != keep]
            changes: list[Change] = []
            gone: set[str] = set()
            for start in range(0, len(keys), _AT_ONCE):
                if len(changes) >= _AT_ONCE:
                    break
                page = keys[start : start + _AT_ONCE]
                for key, found in zip(page, await self._transactions.take([f"s:{key}" for key in page]), strict=True):
                    gone.add(key)
                    if self._is_of(found, index):
                        changes.append((found, None))
            if not gone:
                return tuple(ended)
            check_deadline(begun=bool(ended))
            # The list is written also where no session is left: one that was rotated meanwhile is under another key by now.
            if await self._transactions.commit([*changes, (listed, _without(listed, gone))]):
                ended += _ended(changes)
                if not changes:
                    return tuple(ended)
            else:
                await back_off(attempt)
        raise AssertionError

    @finished
    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        for attempt in count():
            (found,) = await self._transactions.take([f"c:{name}"])
            if self._claimed(found) is not None:
                return False
            if await self._transactions.commit([(found, Claim(expires_at))]):
                return True
            await back_off(attempt)
        raise AssertionError

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`. A claim that cannot be read holds."""
        (found,) = await self._transactions.read([f"c:{name}"])
        return self._claimed(found)

    async def trace(self, keys: Sequence[str]) -> dict[str, Trace]:
        """See `SessionTracing.trace`."""
        traces: dict[str, Trace] = {}
        for key, found in zip(keys, await self._transactions.read([f"s:{key}" for key in keys]), strict=True):
            stored = self._stored(key, found)
            if stored is not None:
                traces[key] = Trace(stored.entry.expires_at)
            elif (successor := self._successor(found)) is not None:
                traces[key] = Trace(found.until, successor)
        return traces

    async def _enlist(
        self,
        changes: list[Change],
        lists: list[Found],
        entry: Entry,
        key: str,
        *,
        leaving: str | None = None,
        limit: int = 0,
        ended: list[str] | None = None,
    ) -> int:
        """Put a key on the lists of its entry, in place of `leaving`, and end sessions above the limit.

        Adds to `changes`, and to `ended` the sessions that are ended at once; returns when the lists expire.
        """
        ended = [] if ended is None else ended
        earliest = FOREVER
        for listed in lists:
            is_user = listed.name.startswith("u:")
            document = listed.read(KeyList)
            before = document if isinstance(document, KeyList) else KeyList(0, [], _PRUNE_FROM)
            others = [each for each in before.keys if each not in {key, leaving}]
            prune_at = before.prune_at
            if (is_user and 0 < limit <= len(others)) or len(others) >= prune_at:
                index = SessionIndex(user=entry.user) if is_user else SessionIndex(op_session=entry.op_session)
                alive = [each for each in await self._transactions.take([f"s:{k}" for k in others]) if self._is_of(each, index)]
                alive.sort(key=_rank)
                above = max(len(alive) - limit + 1, 0) if is_user and limit > 0 else 0
                for each in alive[: max(above - _AT_ONCE, 0)]:  # far above a lowered limit: these end before
                    check_deadline(begun=bool(ended))
                    ended += _ended([(each, None)] if await self._transactions.commit([(each, None)]) else [])
                changes += [(each, None) for each in alive[max(above - _AT_ONCE, 0) : above]]
                others = [each.name[2:] for each in alive[above:]]
                prune_at = max(_PRUNE_FROM, 2 * len(others))
            life = max(entry.expires_at - self._clock.now(), 0)
            # Kept one life longer than asked for, so that not every touch has to write the list again.
            until = max(before.until, entry.expires_at + life)
            earliest = min(earliest, until)
            changes.append((listed, KeyList(until, [*others, key], prune_at)))
        return earliest

    async def _strike(self, names: list[str], key: str) -> None:
        """Remove a key from its lists; if that fails, the next read of a list removes it."""
        with suppress(StoreUnavailableError):
            for listed in await self._transactions.read(names):
                await self._prune(listed, [each for each in _keys(listed) if each != key])

    async def _prune(self, listed: Found, left: list[str]) -> None:
        if not listed.clean or len(left) == len(_keys(listed)):
            return
        with suppress(StoreUnavailableError):
            await self._transactions.commit([(listed, _without(listed, set(_keys(listed)) - set(left)))])

    async def _load_page(self, keys: list[str]) -> list[StoredSession]:
        found = await self._transactions.read([f"s:{key}" for key in keys])
        return [stored for key, each in zip(keys, found, strict=True) if (stored := self._stored(key, each)) is not None]

    @asynccontextmanager
    async def _turn(self, user: str | None) -> AsyncIterator[None]:
        """Serialize the logins of one user in this process: concurrent transactions would make each other fail."""
        if user is None:
            yield
            return
        async with self._locks.hold(user):
            yield

    def _live(self, found: Found) -> SessionDocument | Corrupt | None:
        document = found.read(SessionDocument)
        if isinstance(document, SessionDocument) and (document.moved_to is not None or document.until <= self._clock.now()):
            return None
        return document

    def _successor(self, found: Found) -> str | None:
        document = found.read(SessionDocument)
        if not isinstance(document, SessionDocument) or document.until <= self._clock.now():
            return None
        return document.moved_to

    def _is_of(self, found: Found, index: SessionIndex) -> bool:
        live = self._live(found)
        return isinstance(live, SessionDocument) and index.selects(live.user, live.op_session)

    def _expect(self, found: Found, version: int) -> SessionDocument:
        live = self._live(found)
        if not isinstance(live, SessionDocument):
            raise SessionGoneError
        if live.version != version:
            raise SessionConflictError
        return live

    def _refuse_taken(self, found: Found) -> None:
        if self._live(found) is not None or self._successor(found) is not None:
            msg = "the session key is taken"
            raise SessionConflictError(msg)

    def _stored(self, key: str, found: Found) -> StoredSession | None:
        """Return the session for the caller; one that cannot be read has no data and a version that no write has."""
        live = self._live(found)
        if isinstance(live, SessionDocument):
            return StoredSession(key, live.version, _entry(live))
        return None if live is None else StoredSession(key, 0, Entry(b"", self._clock.now() + _UNREADABLE_MS))

    def _claimed(self, found: Found) -> int | None:
        document = found.read(Claim)
        now = self._clock.now()
        until = document.until if isinstance(document, Claim) else 0 if document is None else now + _UNREADABLE_MS
        return until if until > now else None


def _entry(document: SessionDocument) -> Entry:
    return Entry(document.data, document.until, document.user, document.op_session, document.rank)


def _record(entry: Entry, version: int, listed_until: int) -> SessionDocument:
    return SessionDocument(
        entry.expires_at, version, entry.data, entry.user, entry.op_session, entry.rank, listed_until=listed_until
    )


def _keys(listed: Found) -> list[str]:
    document = listed.read(KeyList)
    return document.keys if isinstance(document, KeyList) else []


def _without(listed: Found, gone: Collection[str]) -> KeyList | None:
    document = listed.read(KeyList)
    if not isinstance(document, KeyList) or not (left := [key for key in document.keys if key not in gone]):
        return None
    return KeyList(document.until, left, document.prune_at)


def _rank(found: Found) -> tuple[int, str]:
    document = found.read(SessionDocument)
    return document.rank if isinstance(document, SessionDocument) else 0, found.name


def _ended(changes: Sequence[Change]) -> tuple[str, ...]:
    """Return the keys of the sessions that the changes end."""
    return tuple(found.name[2:] for found, document in changes if document is None and found.name.startswith("s:"))
