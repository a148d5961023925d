"""Claims without compare-and-swap: exact in one process, best effort between processes."""

from __future__ import annotations

from typing import Final

from session_core.errors import StoreUnavailableError
from session_core.stores.deadlines import check_deadline
from session_core.stores.document.backend import DocumentFile
from session_core.stores.document.format import Claim, nonce
from session_core.stores.document.locks import NamedLocks

__all__ = ("DocumentClaims",)

_MINUTE_MS: Final = 60_000


class DocumentClaims:
    """Names claimed until a time (Unix milliseconds)."""

    def __init__(self, file: DocumentFile, locks: NamedLocks) -> None:
        self._file = file
        self._locks = locks

    async def claim(self, name: str, expires_at: int, *, consistent: bool) -> bool:
        """Claim the name; return whether the caller has it, as far as can be known here.

        Two processes that claim at the same instant may both get True: each may read its own claim before the other overwrites
        it. No order of reads and writes can prevent that.
        """
        async with self._locks.hold(f"c:{name}"):
            if await self.claimed_until(name) is not None:
                return False
            claim = Claim(expires_at, nonce())
            check_deadline()
            await self._file.put(f"c:{name}", claim)
            return not consistent or await self._file.get(f"c:{name}", Claim) == claim

    async def claimed_until(self, name: str) -> int | None:
        """Return until when the name is taken. An unreadable claim counts as taken."""
        found = await self._file.get(f"c:{name}", Claim)
        if found is None:
            return None
        now = self._file.clock.now()
        until = found.until if isinstance(found, Claim) else now + _MINUTE_MS
        return until if until > now else None

    async def ping(self, *, consistent: bool) -> None:
        """Write, read back and remove a value."""
        claim = Claim(self._file.clock.now() + _MINUTE_MS, nonce())
        name = f"c:ping-{claim.nonce}"
        await self._file.put(name, claim)
        back = await self._file.get(name, Claim)
        await self._file.delete(name)
        if consistent and back != claim:
            msg = "a written value was not read back unchanged"
            raise StoreUnavailableError(msg)
