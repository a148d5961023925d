"""Names that are used up until a time, as files; knows no session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_core.stores.file.disk import file_name

if TYPE_CHECKING:
    from pathlib import Path

    from session_core.clock import Clock
    from session_core.stores.file.disk import Disk
    from session_core.stores.file.transactions import Transactions

__all__ = ("ClaimFiles",)


class ClaimFiles:
    """One file per claim; it says until when."""

    def __init__(self, disk: Disk, transactions: Transactions, clock: Clock) -> None:
        self._disk = disk
        self._transactions = transactions
        self._clock = clock

    def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        path = self._disk.claims / file_name(name)
        with self._transactions.writing(lambda: [f"claim:{path.name}"]):
            if self._until(path) > self._clock.now():
                return False
            self._disk.write(path, str(expires_at).encode())
            self._disk.sync(self._disk.claims)
            return True

    def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        until = self._until(self._disk.claims / file_name(name))
        return until if until > self._clock.now() else None

    def names(self) -> list[str]:
        """Return the file names of all claims, live or not."""
        return list(self._disk.names(self._disk.claims))

    def remove_expired(self, name: str) -> bool:
        """Remove the claim of a file name if it has expired; return whether this call did."""
        path = self._disk.claims / name
        if self._until(path) > self._clock.now():
            return False
        with self._transactions.writing(lambda: [f"claim:{name}"]):
            if not path.exists() or self._until(path) > self._clock.now():
                return False
            path.unlink(missing_ok=True)
            return True

    def _until(self, path: Path) -> int:
        content = self._disk.read(path) or b"0"
        return int(content) if content.isdigit() else 0
