"""Reads sessions and decides which are alive: by end marks and generations, not by the last write."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from session_core.stores.base import Entry, SessionIndex, StoredSession
from session_core.stores.document.backend import DocumentFile
from session_core.stores.document.format import Corrupt, EndMark, Generation, Record, decode

__all__ = ("DocumentReader", "Found", "index_names")

_UNREADABLE_MS = 60_000


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The documents under a key."""

    key: str
    record: Record | Corrupt | None
    marked: bool = False
    """There is an end mark: the session has ended, whatever the record contains."""
    alive: bool = False
    pending: bool = False
    """The record belongs to a rotation that is not complete."""
    generations: tuple[int, int] = (0, 0)
    """The generations of the record's user and OP session, as read."""

    @property
    def live(self) -> Record | None:
        """The record of a live, readable session."""
        return self.record if self.alive and isinstance(self.record, Record) else None

    def is_of(self, index: SessionIndex) -> bool:
        """Whether the record belongs to this index."""
        return isinstance(self.record, Record) and index.selects(self.record.user, self.record.op_session)

    def stored(self, now: int) -> StoredSession | None:
        """Return the stored session; an unreadable one has no data and a version that no write has."""
        if not self.alive:
            return None
        if not isinstance(self.record, Record):
            return StoredSession(self.key, 0, Entry(b"", now + _UNREADABLE_MS))
        it = self.record
        return StoredSession(self.key, it.version, Entry(it.data, it.until, it.user, it.op_session, it.rank))


def index_names(user: str | None, op_session: str | None) -> list[str | None]:
    """Return the document names of the index values, None for a missing one."""
    return [None if user is None else f"u{user}", None if op_session is None else f"o{op_session}"]


class DocumentReader:
    """Reads sessions with their marks and generations, many at a time."""

    def __init__(self, file: DocumentFile) -> None:
        self._file = file

    async def one(self, key: str) -> Found:
        """Return the documents under a key."""
        return (await self.many([key]))[0]

    async def many(self, keys: Sequence[str]) -> list[Found]:
        """Return the documents under each key."""
        raws = await self._file.read([name for key in keys for name in (f"s:{key}", f"e:{key}")])
        now = self._file.clock.now()
        first: list[Found] = []
        for key, raw, mark in zip(keys, raws[::2], raws[1::2], strict=True):
            record = decode(raw, Record)
            corrupt = isinstance(record, Corrupt)
            alive = mark is None and record is not None and (isinstance(record, Corrupt) or record.until > now)
            first.append(Found(key=key, record=Corrupt() if corrupt else record, marked=mark is not None, alive=alive))
        also = dict.fromkeys(name for found in first for name in _also(found))
        if not also:
            return first
        values = await self._file.read(list(also))
        return [_judged(found, dict(zip(also, values, strict=True))) for found in first]

    async def generations(self, names: Sequence[str | None]) -> tuple[int, int]:
        """Return the generation of each index value; 0 if never revoked."""
        wanted = [f"g:{name}" for name in names if name is not None]
        values = iter(await self._file.read(wanted) if wanted else [])
        user, op_session = (0 if name is None else _number(_generation(next(values))) for name in names)
        return user, op_session


def _also(found: Found) -> list[str]:
    """Return the further documents that decide whether this one is alive."""
    record = found.live
    if record is None:
        return []
    names = [f"g:{name}" for name in index_names(record.user, record.op_session) if name is not None]
    return [*names, f"e:{record.pending}"] if record.pending else names


def _judged(found: Found, values: dict[str, bytes | None]) -> Found:
    record = found.live
    if record is None:
        return found
    if record.pending:
        mark = decode(values[f"e:{record.pending}"], EndMark)
        if not isinstance(mark, EndMark) or mark.to != found.key:
            return msgspec.structs.replace(found, alive=False, pending=mark is None)
    current: list[int] = []
    alive = True
    for name, mine in zip(index_names(record.user, record.op_session), record.generations, strict=True):
        generation = None if name is None else _generation(values[f"g:{name}"])
        current.append(_number(generation))
        if generation is not None and generation.number != mine and generation.keep != found.key:
            alive = False
    return msgspec.structs.replace(found, alive=alive, generations=(current[0], current[1]))


def _generation(raw: bytes | None) -> Generation | None:
    found = decode(raw, Generation)
    # An unreadable generation counts as a revocation of all earlier sessions.
    return Generation(0, -1) if isinstance(found, Corrupt) else found


def _number(generation: Generation | None) -> int:
    return 0 if generation is None else generation.number
