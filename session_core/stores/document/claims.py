"""Claims in a place without compare-and-swap: single use in one process, and a check that most others meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from session_core.errors import StoreUnavailableError
from session_core.stores.deadlines import check_deadline
from session_core.stores.document.format import Claim, nonce

if TYPE_CHECKING:
    from session_core.stores.document.backend import DocumentFile
    from session_core.stores.document.locks import NamedLocks

__all__ = ("DocumentClaims",)

_MINUTE_MS: Final = 60_000


class DocumentClaims:
    """Names that are taken until a time (Unix milliseconds)."""

    def __init__(self, file: DocumentFile, locks: NamedLocks) -> None:
        self._file = file
        self._locks = locks

    async def claim(self, name: str, expires_at: int, *, consistent: bool) -> bool:
        """Return whether the caller has the name, as far as can be known here.

        Of two processes that ask at the same instant both may get yes: the last writer finds its own claim, and the one that
        looks before that found his own as well. No order of writing and reading can prevent it.
        """
        async with self._locks.hold(f"c:{name}"):
            if await self.claimed_until(name) is not None:
                return False
            claim = Claim(expires_at, nonce())
            check_deadline()
            await self._file.put(f"c:{name}", claim)
            return not consistent or await self._file.get(f"c:{name}", Claim) == claim

    async def claimed_until(self, name: str) -> int | None:
        """Return until when the name is taken. A claim that cannot be read holds."""
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
            msg = "what was written is not what is read"
            raise StoreUnavailableError(msg)
