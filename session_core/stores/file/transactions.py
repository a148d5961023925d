"""Changes to several files as one step, over threads, processes and kills: locks, and a journal of what was decided.

A change holds the locks of all names it concerns. One of a single file is made by a rename. One of several files is first
written down whole in the journal (the rename of that note is the instant it happens), then made, then the note removed. Who
gets a lock and finds a note on it knows that its author has died, since the author held that same lock, and completes it before
anything else. The kernel releases the locks of a killed process.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import zlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from session_core.stores.file.disk import Disk

__all__ = ("Change", "Transactions")

_STRIPES: Final = 64
"""Part of the format: all processes that share a directory must agree on it."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What becomes of the file of one session: new content, or None for its end."""

    key: str
    content: bytes | None


_changes: Final = msgspec.msgpack.Decoder(list[Change])


class Transactions:
    """Exclusive and shared work on names. `apply` makes changes; it must be repeatable."""

    def __init__(self, disk: Disk, apply: Callable[[list[Change]], None]) -> None:
        self._disk = disk
        self._apply = apply
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Look at a name while nobody changes it."""
        stripes = _mask([name])
        while True:
            with self._locked(stripes, fcntl.LOCK_SH):
                if not any(stripes & noted for _, noted in self._notes()):
                    yield
                    return
            self._recover(stripes)

    @contextmanager
    def writing(self, names: Callable[[], Iterable[str]]) -> Iterator[None]:
        """Change names. `names` is asked again once they are held, until it asks for no further ones."""
        stripes = _mask(names())
        while True:
            with self._locked(stripes, fcntl.LOCK_EX):
                needed = stripes | self._complete_notes(stripes) | _mask(names())
                if needed == stripes:
                    yield
                    return
            stripes = needed

    def commit(self, names: Iterable[str], changes: list[Change]) -> None:
        """Make the changes in one step; all `names` are held. Returns when they are durable.

        After an `OSError` they were made, or will be before anyone looks, or never: as after any lost answer.
        """
        if len(changes) == 1:
            self._apply(changes)
        elif changes:
            note = self._disk.journal / f"{_mask(names):016x}-{secrets.token_hex(8)}"
            self._disk.write(note, msgspec.msgpack.encode(changes))
            self._disk.sync(self._disk.journal)
            self._complete(note, changes)

    def recover(self) -> None:
        """Complete what killed processes had decided."""
        for _, noted in self._notes():
            self._recover(noted)

    def _recover(self, stripes: int) -> None:
        needed = 0
        while needed != stripes:
            stripes |= needed
            with self._locked(stripes, fcntl.LOCK_EX):
                needed = stripes | self._complete_notes(stripes)

    def _complete_notes(self, stripes: int) -> int:
        """Complete what concerns the held stripes; return the stripes that are needed to complete the rest."""
        needed = 0
        for note, noted in self._notes():
            if noted & stripes:
                needed |= noted
                if noted | stripes == stripes:
                    self._complete(note)
        return needed

    def _complete(self, note: Path, changes: list[Change] | None = None) -> None:
        if changes is None:
            content = self._disk.read(note)
            if content is None:
                return
            try:
                changes = _changes.decode(content)
            except msgspec.MsgspecError:
                self._log.error("store.journal_unreadable", note=note.name)
                changes = []
        self._apply(changes)
        note.unlink(missing_ok=True)
        # Or a power cut would bring the note back, and with it old content over newer writes.
        self._disk.sync(self._disk.journal)

    def _notes(self) -> list[tuple[Path, int]]:
        return [(self._disk.journal / name, int(name.partition("-")[0], 16)) for name in self._disk.names(self._disk.journal)]

    @contextmanager
    def _locked(self, stripes: int, kind: int) -> Iterator[None]:
        # Always in rising order, so that no two wait for each other. Closing a file releases its lock.
        with ExitStack() as stack:
            for number in range(_STRIPES):
                if stripes >> number & 1:
                    path = self._disk.locks / f"{number:02x}"
                    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    stack.callback(os.close, descriptor)
                    fcntl.flock(descriptor, kind)
            yield


def _mask(names: Iterable[str]) -> int:
    mask = 0
    for name in names:
        mask |= 1 << zlib.crc32(name.encode()) % _STRIPES
    return mask
