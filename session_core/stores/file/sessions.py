"""The store contract on a directory, in plain blocking calls; knows no event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.ids import handle_of
from session_core.stores.announcements import Trace
from session_core.stores.base import SessionIndex
from session_core.stores.file.disk import Disk
from session_core.stores.file.format import FileRecord, decode, encode
from session_core.stores.file.marks import Marks, is_key
from session_core.stores.file.transactions import Change, Transactions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from session_core.clock import Clock
    from session_core.stores.base import Entry, StoredSession

__all__ = ("SessionFiles",)


class SessionFiles:
    """Sessions as files; each method is the one of `SessionStore` of that name."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._clock = clock
        self.disk = Disk(root)
        self.transactions = Transactions(self.disk, self._apply)
        self._marks = Marks(self.disk)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")

    def open(self) -> None:
        """Create the directories and complete what killed processes had decided."""
        self.disk.prepare()
        self.transactions.recover()

    def ping(self) -> None:
        """See `SessionStore.ping`."""
        self.disk.probe()

    def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        path = self._path(key)
        with self.transactions.reading(f"key:{key}"):
            record = self._read(path)
        return record.stored() if record is not None and self._is_live(record) else None

    def create(self, key: str, entry: Entry, limit: int) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        self._path(key)

        def names() -> list[str]:
            return [f"key:{key}", *self._names_for_limit(entry, limit)]

        with self.transactions.writing(names):
            self._refuse_taken(key)
            evicted = self._to_evict(entry, limit)
            self._commit(names(), [FileRecord.of(key, 1, entry)], evicted)
            return evicted

    def replace(self, key: str, entry: Entry, version: int) -> int:
        """See `SessionStore.replace`."""
        with self.transactions.writing(lambda: [f"key:{key}"]):
            self._expect(key, version)
            self._commit([], [FileRecord.of(key, version + 1, entry)])
            return version + 1

    def rotate(self, old_key: str, new_key: str, entry: Entry, version: int, successor_until: int, limit: int) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        self._path(new_key)

        def names() -> list[str]:
            # Both indexes: whoever ends the sessions of a user, or of the OP's session, must meet the new key or the old one.
            return [
                f"key:{old_key}",
                f"key:{new_key}",
                f"user:{entry.user}",
                f"op_session:{entry.op_session}",
                *self._names_for_limit(entry, limit),
            ]

        with self.transactions.writing(names):
            old = self._expect(old_key, version)
            self._refuse_taken(new_key)
            evicted = self._to_evict(entry, limit, beside=old_key)
            gone = FileRecord(old_key, old.version, successor_until, successor=new_key)
            self._commit(names(), [FileRecord.of(new_key, 1, entry), gone], evicted)
            return evicted

    def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        with self.transactions.writing(lambda: [f"key:{key}"]):
            record = self._live(key)
            if record is None:
                return False
            if expires_at > record.expires_at:
                entry = record.stored().entry
                moved = FileRecord(key, record.version, expires_at, entry.user, entry.op_session, entry.rank, None, entry.data)
                self._commit([], [moved])
            return True

    def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""

        def names() -> list[str]:
            return [f"key:{each}" for each in self._chain(key)]

        with self.transactions.writing(names):
            chain = self._chain(key)
            deleted = tuple(each for each in chain if self._live(each) is not None)
            self._commit(names(), [], tuple(each for each in chain if self._path(each).exists()))
            return deleted

    def find(self, index: SessionIndex) -> list[StoredSession]:
        """See `SessionStore.find`."""
        found: list[StoredSession] = []
        for key in self._marks.keys(index):
            stored = self.load(key)
            if stored is not None and _belongs(stored.entry, index):
                found.append(stored)
            else:
                self._drop_mark(self._marks.at(index, key))
        return found

    def delete_by(self, index: SessionIndex, keep: str | None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`."""

        def names() -> list[str]:
            name = f"user:{index.user}" if index.user is not None else f"op_session:{index.op_session}"
            return [name, *(f"key:{key}" for key in self._marks.keys(index))]

        with self.transactions.writing(names):
            live = [record for key in self._marks.keys(index) if (record := self._live(key)) is not None]
            keys = tuple(record.key for record in live if record.key != keep and _belongs(record, index))
            self._commit(names(), [], keys)
            return keys

    def trace(self, keys: Sequence[str]) -> dict[str, Trace]:
        """See `SessionTracing.trace`."""
        traces: dict[str, Trace] = {}
        for key in keys:
            with self.transactions.reading(f"key:{key}"):
                record = self._read(self._path(key))
            if record is not None and record.expires_at > self._clock.now():
                traces[key] = Trace(record.expires_at, record.successor)
        return traces

    def keys(self) -> list[str]:
        """Return the keys of all files, live or not."""
        return [name for name in self.disk.names(self.disk.sessions) if is_key(name)]

    def remove_expired(self, key: str) -> bool:
        """Remove the file of a key if it has expired; return whether this call did. A live one gets back the marks it lost."""
        record = self._read(self._path(key))
        if record is None or (record.expires_at > self._clock.now() and all(mark.exists() for mark in self._marks.of(record))):
            return False
        with self.transactions.writing(lambda: [f"key:{key}"]):
            record = self._read(self._path(key))
            if record is None:
                return False
            if record.expires_at > self._clock.now():
                self._mark(record)
                return False
            self._commit([], [], (key,))
            return True

    def clean(self) -> None:
        """Complete what killed processes had decided, and remove what they left."""
        self.transactions.recover()
        self.disk.clean()
        for mark in self._marks.all():
            if not self._path(mark.name).exists():
                self._drop_mark(mark)

    def _apply(self, changes: list[Change]) -> None:
        """Make the changes; the locks are held. Repeatable: half of it may have been made before."""
        stale: set[Path] = set()
        for change in changes:
            path = self._path(change.key)
            stale |= self._marks.of(self._read(path))
            if change.content is None:
                path.unlink(missing_ok=True)
            else:
                self.disk.write(path, change.content)
                stale -= self._marks.of(decode(change.content))
        self.disk.sync(self.disk.sessions)
        for mark in stale:
            self.disk.unmark(mark)

    def _commit(self, names: list[str], records: list[FileRecord], ended: tuple[str, ...] = ()) -> None:
        for record in records:
            self._mark(record)
        changes = [Change(record.key, encode(record)) for record in records]
        self.transactions.commit(names, changes + [Change(key, None) for key in ended])

    def _mark(self, record: FileRecord) -> None:
        # Those of the record that is there are on the disk already. Any other may be new and not yet be, even if it exists.
        known = self._marks.of(self._read(self._path(record.key)))
        for mark in self._marks.of(record):
            if mark not in known or not mark.exists():
                self.disk.mark(mark)

    def _drop_mark(self, mark: Path) -> None:
        """Remove a mark unless it belongs to the record of its key: a writer may be between the mark and the record."""
        with self.transactions.writing(lambda: [f"key:{mark.name}"]):
            if mark not in self._marks.of(self._read(self._path(mark.name))):
                self.disk.unmark(mark)

    def _names_for_limit(self, entry: Entry, limit: int) -> list[str]:
        if limit <= 0 or entry.user is None:
            return []
        marked = self._marks.keys(SessionIndex(user=entry.user))
        return [f"user:{entry.user}", *(f"key:{key}" for key in marked)]

    def _to_evict(self, entry: Entry, limit: int, *, beside: str = "") -> tuple[str, ...]:
        if limit <= 0 or entry.user is None:
            return ()
        marked = self._marks.keys(SessionIndex(user=entry.user))
        live = [record for key in marked if (record := self._live(key)) is not None]
        others = [record for record in live if record.user == entry.user and record.key != beside]
        others.sort(key=lambda record: (record.rank, record.key))
        return tuple(record.key for record in others[: max(len(others) - limit + 1, 0)])

    def _chain(self, key: str) -> list[str]:
        """Return the key and what it was rotated to, as far as it is remembered."""
        chain = [key]
        while (record := self._read(self._path(chain[-1]))) is not None:
            if record.successor is None or record.expires_at <= self._clock.now() or record.successor in chain:
                break
            chain.append(record.successor)
        return chain

    def _expect(self, key: str, version: int) -> FileRecord:
        record = self._live(key)
        if record is None:
            raise SessionGoneError
        if record.version != version:
            raise SessionConflictError
        return record

    def _refuse_taken(self, key: str) -> None:
        record = self._read(self._path(key))
        if record is not None and record.expires_at > self._clock.now():
            msg = "the session key is taken"
            raise SessionConflictError(msg)

    def _live(self, key: str) -> FileRecord | None:
        record = self._read(self._path(key))
        return record if record is not None and self._is_live(record) else None

    def _is_live(self, record: FileRecord) -> bool:
        return record.successor is None and record.expires_at > self._clock.now()

    def _read(self, path: Path) -> FileRecord | None:
        content = self.disk.read(path)
        if content is None:
            return None
        try:
            return decode(content)
        except ValueError as error:
            # A damaged disk must not answer 500 to whoever has that session for ever: it is as good as gone.
            self._log.error("store.file_unreadable", session=handle_of(path.name), reason=str(error))
            return None

    def _path(self, key: str) -> Path:
        if not is_key(key):
            msg = "a session key consists of letters, digits, '-' and '_'"
            raise ValueError(msg)
        return self.disk.sessions / key


def _belongs(record: FileRecord | Entry, index: SessionIndex) -> bool:
    return record.user == index.user if index.user is not None else record.op_session == index.op_session
