"""Sessions in a directory of files, safe over processes and kills: the contract's asynchronous face.

Needs POSIX file locks (Linux, macOS, BSD) and a local file system.
"""

from __future__ import annotations

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from session_core.clock import Clock, SystemClock
from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession
from session_core.stores.file.claims import ClaimFiles
from session_core.stores.file.sessions import SessionFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from os import PathLike

    from session_core.stores.announcements import Trace

__all__ = ("FileStore",)

T = TypeVar("T")
_THREADS: Final = 16
_PAGE: Final = 100


class FileStore:
    """One file per session under `path`, readable by its owner only. `timeout` is in seconds, for one call.

    Work happens in threads of its own: waiting for a disk or a lock never blocks the event loop. A call that is cancelled, or
    given up after `timeout`, is still completed as a whole or not begun.
    """

    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=False)

    def __init__(self, path: str | PathLike[str], *, clock: Clock | None = None, timeout: float = 5.0) -> None:
        clock = clock or SystemClock()
        self._timeout = timeout
        self._sessions = SessionFiles(Path(path), clock)
        self._claims = ClaimFiles(self._sessions.disk, self._sessions.transactions, clock)
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """See `SessionStore.open`."""
        await self.close()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="session-files")
        try:
            await self._run(self._sessions.open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `SessionStore.close`. Waits for calls under way. It may be opened again."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)

    async def ping(self) -> None:
        """See `SessionStore.ping`."""
        await self._run(self._sessions.ping)

    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        return await self._run(lambda: self._sessions.load(key))

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        return await self._run(lambda: self._sessions.create(key, entry, limit))

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""
        return await self._run(lambda: self._sessions.replace(key, entry, version))

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        return await self._run(lambda: self._sessions.rotate(old_key, new_key, entry, version, successor_until, limit))

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        return await self._run(lambda: self._sessions.touch(key, expires_at))

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""
        return await self._run(lambda: self._sessions.delete(key))

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`."""
        traces: dict[str, Trace] = {}
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            traces |= await self._run(partial(self._sessions.trace, page))
        return traces

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        return await self._run(lambda: self._sessions.find(index))

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`."""
        return await self._run(lambda: self._sessions.delete_by(index, keep))

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`. Reads every file; also removes what killed processes left."""
        removed = 0
        for names, remove in (
            (self._sessions.keys, self._sessions.remove_expired),
            (self._claims.names, self._claims.remove_expired),
        ):
            listed = await self._run(names)
            for start in range(0, len(listed), _PAGE):
                page = listed[start : start + _PAGE]
                removed += await self._run(_remover(remove, page, limit - removed))
        await self._run(self._sessions.clean)
        return removed

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`."""
        for key in await self._run(self._sessions.keys):
            stored = await self.load(key)
            if stored is not None:
                yield stored

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        return await self._run(lambda: self._claims.claim(name, expires_at))

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        return await self._run(lambda: self._claims.claimed_until(name))

    async def _run(self, call: Callable[[], T]) -> T:
        if self._threads is None:
            msg = "the session store is not open"
            raise StoreUnavailableError(msg)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except OSError as error:
            # The kind alone: the operating system's message quotes the path, and with it the key.
            kind = errno.errorcode.get(error.errno or 0, type(error).__name__)
            msg = f"the file session store is unavailable ({kind})"
            raise StoreUnavailableError(msg) from error


def _remover(remove: Callable[[str], bool], names: list[str], limit: int) -> Callable[[], int]:
    def call() -> int:
        removed = 0
        for name in names:
            if removed >= limit:
                break
            removed += remove(name)
        return removed

    return call
