"""Sessions in a key-value service without compare-and-swap, with a weaker contract.

Within one process everything holds. Between processes a session that has ended stays ended and a rotation is one step, as
long as what one process has written is what the next one reads; but of two processes that write one session at the same
instant one write may be lost, and a claim may be given to both. So its capabilities say that it is not atomic, and it refuses the
session limit. See `session_core.stores.document.steps`.

No step, and no deciding write, begins after its deadline. But a write in flight at the deadline may still be made, because such a
service has no deadlines: after a 503 the change may appear a moment later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from session_core.clock import Clock, SystemClock
from session_core.errors import ConfigurationError, SessionConflictError, SessionGoneError
from session_core.stores.announcements import Trace
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession
from session_core.stores.deadlines import check_deadline
from session_core.stores.document.backend import DocumentFile, Documents
from session_core.stores.document.calls import finished
from session_core.stores.document.claims import DocumentClaims
from session_core.stores.document.format import KINDS, Record, Successor, decode, nonce
from session_core.stores.document.index import DocumentIndex, index_name
from session_core.stores.document.listing import ListedStore, Sweeper
from session_core.stores.document.locks import NamedLocks
from session_core.stores.document.reader import DocumentReader, Found, index_names
from session_core.stores.document.steps import DocumentSteps

__all__ = ("DocumentStore",)

_SETTLED_MS: Final = 60_000
"""How long a listed key without a record may still be in the course of being written."""


class DocumentStore(ListedStore):
    """Any `Documents` as a store, with the `capabilities` of its driver."""

    def __init__(self, documents: Documents, capabilities: StoreCapabilities, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._documents = documents
        self._file = DocumentFile(documents, self._clock)
        self._locks = NamedLocks()
        self._reader = DocumentReader(self._file)
        self._index = DocumentIndex(self._file, self._locks)
        self._steps = DocumentSteps(self._file, self._reader, self._index, self._locks)
        self._claims = DocumentClaims(self._file, self._locks)
        sweeper = Sweeper(documents, self._clock, self._steps.remove_if_over, kinds=KINDS, uncounted="u")
        super().__init__(documents, capabilities, sweeper)

    async def open(self) -> None:
        """See `SessionStore.open`; also checks that a written value can be read back."""
        await self._documents.open()
        await self.ping()

    @finished
    async def ping(self) -> None:
        """See `SessionStore.ping`: a value is written, read back and removed."""
        await self._claims.ping(consistent=self.capabilities.consistent)

    @finished
    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`. A record that cannot be read is returned without data."""
        return (await self._reader.one(key)).stored(self._clock.now())

    @finished
    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`. Raises `ConfigurationError` for a limit."""
        _refuse_limit(entry, limit)
        async with self._locks.hold(f"s:{key}"):
            await self._steps.clear(key)
            names = index_names(entry.user, entry.op_session)
            generations = await self._reader.generations(names)
            await self._steps.list_key(key, self._record(entry, 1, generations))
            check_deadline()
            while True:
                await self._file.put(f"s:{key}", self._record(entry, 1, generations))
                # Use the current generation: this session is new, and not affected by earlier revocations.
                if (newest := await self._reader.generations(names)) == generations:
                    return ()
                generations = newest

    @finished
    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""
        async with self._locks.hold(f"s:{key}"):
            found = await self._reader.one(key)
            before = _expect(found, version)
            record = self._record(entry, version + 1, await self._generations_for(entry, found, before), before)
            await self._steps.list_key(key, record)
            check_deadline()
            await self._steps.write_over(key, record, consistent=self.capabilities.consistent)
            await self._steps.forget_key(key, before, unless=record)
            return version + 1

    @finished
    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`. Raises `ConfigurationError` for a limit."""
        _refuse_limit(entry, limit)
        async with self._locks.hold(f"s:{old_key}"):
            found = await self._reader.one(old_key)
            before = _expect(found, version)
            await self._steps.clear(new_key)
            record = self._record(entry, 1, await self._generations_for(entry, found, before))
            await self._steps.rotate(
                found, new_key, record, successor_until=successor_until, consistent=self.capabilities.consistent
            )
            return ()

    @finished
    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        async with self._locks.hold(f"s:{key}"):
            before = (await self._reader.one(key)).live
            if before is None:
                return False
            if expires_at <= before.until:
                return True
            life = max(before.life, expires_at - self._clock.now())
            record = msgspec.structs.replace(before, until=expires_at, life=life, nonce=nonce(), pending=None)
            check_deadline()
            try:
                await self._steps.write_over(key, record, consistent=False)
            except SessionGoneError:
                return False
            await self._steps.list_key(key, record)
            return True

    @finished
    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""
        return tuple(await self._steps.end(key))

    @finished
    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        name = index_name(index)
        listed = await self._index.keys(name)
        now = self._clock.now()
        live: list[StoredSession] = []
        stale: list[str] = []
        for found in await self._reader.many(list(listed)):
            stored = found.stored(now)
            if stored is not None and found.is_of(index):
                live.append(stored)
            elif found.marked or listed[found.key] < now - _SETTLED_MS:
                stale.append(found.key)
        await self._index.discard(name, stale)
        return live

    @finished
    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`. Also ends the sessions that another process has just begun and not listed yet."""
        name = index_name(index)
        if keep is not None:
            found = await self._reader.one(keep)
            keep = keep if found.alive and found.is_of(index) else None
        ended: list[str] = []
        for key in await self._index.keys(name):
            if key != keep:
                ended += await self._steps.end(key, index, keep=keep)
        check_deadline(begun=bool(ended))
        await self._index.revoke(name, keep=keep)
        return tuple(dict.fromkeys(ended))

    @finished
    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`; exact within this process, best effort between processes."""
        return await self._claims.claim(name, expires_at, consistent=self.capabilities.consistent)

    @finished
    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`. A claim that cannot be read holds."""
        return await self._claims.claimed_until(name)

    @finished
    async def trace(self, keys: Sequence[str]) -> dict[str, Trace]:
        """See `SessionTracing.trace`."""
        now = self._clock.now()
        traces: dict[str, Trace] = {}
        gone: list[str] = []
        for found in await self._reader.many(keys):
            stored = found.stored(now)
            if stored is None:
                gone.append(found.key)
            else:
                traces[found.key] = Trace(stored.entry.expires_at)
        for key, raw in zip(gone, await self._file.read([f"n:{key}" for key in gone]), strict=True):
            successor = decode(raw, Successor)
            if isinstance(successor, Successor) and successor.until > now:
                traces[key] = Trace(successor.until, successor.to)
        return traces

    async def _load_page(self, keys: list[str]) -> list[StoredSession]:
        now = self._clock.now()
        return [stored for found in await self._reader.many(keys) if (stored := found.stored(now)) is not None]

    async def _generations_for(self, entry: Entry, found: Found, before: Record) -> tuple[int, int]:
        """Return the generations to write: those under which the session was found alive, for what stays as it is."""
        names = index_names(entry.user, entry.op_session)
        same = [entry.user == before.user, entry.op_session == before.op_session]
        newest = await self._reader.generations([None if stays else name for name, stays in zip(names, same, strict=True)])
        user, op_session = (found.generations[i] if same[i] else newest[i] for i in range(2))
        return user, op_session

    def _record(self, entry: Entry, version: int, generations: tuple[int, int], before: Record | None = None) -> Record:
        life = max(entry.expires_at - self._clock.now(), before.life if before else 0, 0)
        return Record(
            until=entry.expires_at,
            version=version,
            data=entry.data,
            user=entry.user,
            op_session=entry.op_session,
            rank=entry.rank,
            generations=generations,
            life=life,
            nonce=nonce(),
        )


def _expect(found: Found, version: int) -> Record:
    record = found.live
    if record is None:
        raise SessionGoneError
    if record.version != version:
        raise SessionConflictError
    return record


def _refuse_limit(entry: Entry, limit: int) -> None:
    if limit > 0 and entry.user is not None:
        msg = "this session store cannot keep a limit of sessions for each user: its writes are not atomic"
        raise ConfigurationError(msg)
