"""The steps of several writes: rotating and ending a session.

Without compare-and-swap, state that a concurrent write must not undo is kept in separate documents. A session ends by its end
mark; a record written later is still dead. Code that ends a session first writes the mark and then looks for a successor; code
that rotates one first writes the successor and then looks for a mark: at least one of the two sees the other. The end mark that
names the new key is the instant of a rotation: before it the old key alone is live, after it the new one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.stores.base import SessionIndex
from session_core.stores.deadlines import check_deadline
from session_core.stores.document.backend import DocumentFile
from session_core.stores.document.format import KINDS, Document, EndMark, Record, Successor, decode
from session_core.stores.document.index import DocumentIndex
from session_core.stores.document.listing import read_again_at
from session_core.stores.document.locks import NamedLocks
from session_core.stores.document.reader import DocumentReader, Found, index_names

__all__ = ("DocumentSteps",)

_MARK_MS: Final = 86_400_000


class DocumentSteps:
    """The operations of `DocumentStore` that take several writes."""

    def __init__(self, file: DocumentFile, reader: DocumentReader, index: DocumentIndex, locks: NamedLocks) -> None:
        self._file = file
        self._reader = reader
        self._index = index
        self._locks = locks

    async def clear(self, key: str) -> None:
        """Make room for a new record. Raises `SessionConflictError` for a key that is taken."""
        if await self._file.read([f"{kind}:{key}" for kind in "sne"]) == [None, None, None]:
            return
        successor = await self._file.get(f"n:{key}", Successor)
        found = await self._reader.one(key)
        if found.alive or (isinstance(successor, Successor) and successor.until > self._file.clock.now()):
            msg = "the session key is taken"
            raise SessionConflictError(msg)
        if isinstance(found.record, Record):
            await self.forget_key(key, found.record)
        for kind in ("s", "n", "e"):  # the mark last: the record must be removed before it
            await self._file.delete(f"{kind}:{key}")

    async def list_key(self, key: str, record: Record) -> None:
        """Put the key on the lists of its record."""
        for name in index_names(record.user, record.op_session):
            await self._index.add(name, key, until=record.until, life=record.life)

    async def forget_key(self, key: str, record: Record, *, unless: Record | None = None) -> None:
        """Remove the key from the lists of its record, except those that also have `unless`."""
        stays = index_names(unless.user, unless.op_session) if unless else []
        for name in index_names(record.user, record.op_session):
            if name not in stays:
                await self._index.discard(name, [key])

    async def write_over(self, key: str, record: Record, *, consistent: bool) -> None:
        """Overwrite the record of a live session, and check whether it is still live.

        Raises `SessionGoneError` when it was ended meanwhile, `SessionConflictError` when another process wrote it.
        """
        await self._file.put(f"s:{key}", record)
        raw, mark = await self._file.read([f"s:{key}", f"e:{key}"])
        if mark is not None:
            await self._file.delete(f"s:{key}")
            raise SessionGoneError
        written = decode(raw, Record)
        if consistent and (not isinstance(written, Record) or written.nonce != record.nonce):
            raise SessionConflictError

    async def rotate(self, old: Found, new_key: str, record: Record, *, successor_until: int, consistent: bool) -> None:
        """Move a live session to a new key. The caller holds the old key's lock.

        Raises `SessionGoneError` or `SessionConflictError`; the new key is dead then.
        """
        before = old.live
        if before is None:
            raise SessionGoneError
        await self.list_key(new_key, record)
        await self._file.put(f"s:{new_key}", msgspec.structs.replace(record, pending=old.key))
        await self._file.put(f"n:{old.key}", Successor(successor_until, new_key))
        raw, mark = await self._file.read([f"s:{old.key}", f"e:{old.key}"])
        current = decode(raw, Record)
        if mark is not None or (consistent and (not isinstance(current, Record) or current.nonce != before.nonce)):
            await self._abandon(new_key, record)
            if mark is None:
                await self._file.delete(f"n:{old.key}")
                raise SessionConflictError
            raise SessionGoneError
        try:
            check_deadline()
        except StoreUnavailableError:
            await self._abandon(new_key, record)
            await self._file.delete(f"n:{old.key}")
            raise
        await self._file.put(f"e:{old.key}", EndMark(self._mark_until(before, record), new_key))
        # The rest is cleanup: without it the marks still decide what is live.
        await self._file.put(f"s:{new_key}", record)
        theirs, mine = await self._file.read([f"e:{new_key}", f"e:{old.key}"])
        mark_of_old = decode(mine, EndMark)
        overtaken = consistent and isinstance(mark_of_old, EndMark) and mark_of_old.to not in {None, new_key}
        if overtaken:
            await self._file.put(f"e:{new_key}", EndMark(self._mark_until(record)))
        if theirs is not None or overtaken:
            await self._abandon(new_key, record)
            raise SessionGoneError
        await self._file.delete(f"s:{old.key}")
        await self.forget_key(old.key, before)

    async def end(self, key: str, index: SessionIndex | None = None, *, keep: str | None = None) -> list[str]:
        """End the session and its remembered successors; with `index`, only those that belong to it. Return which were live."""
        ended: list[str] = []
        seen: set[str] = set()
        current: str | None = key
        if index is not None:
            found = await self._reader.one(key)
            if found.pending and isinstance(found.record, Record):
                current = found.record.pending  # it is being rotated: write the mark where the rotation looks for it
        while current is not None and current not in seen and current != keep:
            seen.add(current)
            async with self._locks.hold(f"s:{current}"):
                if await self._end_one(current, index, begun=bool(ended)):
                    ended.append(current)
                next_one = await self._file.get(f"n:{current}", Successor)
            remembered = isinstance(next_one, Successor) and next_one.until > self._file.clock.now()
            current = next_one.to if isinstance(next_one, Successor) and remembered else None
        return ended

    async def remove_if_over(self, name: str) -> int | None:
        """Remove a document that has ended and return None, or return when to read it again (Unix milliseconds)."""
        async with self._locks.hold(name):
            found = await self._file.get(name, KINDS[name[0]])
            due = read_again_at(found.until if isinstance(found, Document) else None, self._file.clock.now())
            if due is None:
                await self._file.delete(name)
            return due

    async def _end_one(self, key: str, index: SessionIndex | None, *, begun: bool = False) -> bool:
        found = await self._reader.one(key)
        if index is not None and not found.is_of(index):
            return False
        record = found.record
        check_deadline(begun=begun)
        if not found.marked:
            await self._file.put(f"e:{key}", EndMark(self._mark_until(*([record] if isinstance(record, Record) else []))))
        if record is not None:
            await self._file.delete(f"s:{key}")
        if isinstance(record, Record):
            await self.forget_key(key, record)
        return found.alive

    async def _abandon(self, new_key: str, record: Record) -> None:
        await self._file.delete(f"s:{new_key}")
        await self.forget_key(new_key, record)

    def _mark_until(self, *records: Record) -> int:
        """Return until when a mark must stay: longer than any write in flight can make the record live."""
        longest = max((2 * record.life for record in records), default=0)
        return self._file.clock.now() + max(longest, _MARK_MS)
