"""Reads and writes the tokens in stored sessions by compare-and-swap. Makes no call to a provider.

It writes concurrently with requests of the same session, in all processes: they change the data, this changes the tokens, and the
second writer applies its change again to the result of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from session_core.concurrency import back_off, in_turns
from session_core.errors import LoginRequiredError, SessionConflictError, SessionGoneError
from session_core.identity import Identity
from session_core.oidc.tokens.vault import TokenSet, TokenVault
from session_core.sessions.manager import SessionManager
from session_core.sessions.record import SessionRecord, UndecodableError
from session_core.sessions.snapshot import entry_of, snapshot_of
from session_core.stores.base import SessionIndex, StoredSession

__all__ = ("HeldTokens", "SessionTokens", "TokenChange")

_MAX_ATTEMPTS: Final = 100


class HeldTokens(msgspec.Struct, frozen=True):
    """The tokens of one session as stored."""

    key: str
    version: int
    expires_at: int
    record: SessionRecord
    identity: Identity
    tokens: TokenSet


TokenChange: TypeAlias = Callable[["TokenSet"], "TokenSet | None"]
"""Computes the new tokens from the newest ones; None for no change. Runs again if another write came first."""


class SessionTokens:
    """The tokens of all sessions. Every method may raise `StoreUnavailableError`."""

    def __init__(self, sessions: SessionManager, vault: TokenVault) -> None:
        self._sessions = sessions
        self._store = sessions.store
        self._vault = vault

    async def load(self, key: str) -> HeldTokens | None:
        """Return the newest tokens of a session; None if it has ended, or has none that can be opened."""
        stored = await self._store.load(key)
        return self.read(stored) if stored is not None else None

    async def load_for(self, key: str, identity: Identity | None) -> HeldTokens:
        """Return the newest tokens of a session of that user. Raises `LoginRequiredError`."""
        held = await self.load(key)
        if held is None or not held.identity.is_same_user(identity):
            raise LoginRequiredError
        return held

    async def change(self, base: HeldTokens, change: TokenChange, *, used: bool) -> tuple[HeldTokens, bool]:
        """Apply `change` to the newest tokens of the session; return them, and whether they were changed.

        A session that got a new id meanwhile is followed. `used` extends the idle timeout, for a request of the user; background
        work must not extend it.

        Raises `SessionGoneError`, or `SessionConflictError` when other processes win a hundred times in a row.
        """
        current: HeldTokens | None = base
        for attempt in range(_MAX_ATTEMPTS):
            if current is None:
                raise SessionGoneError
            tokens = change(current.tokens)
            if tokens is None:
                return current, False
            try:
                return await self._swap(current, tokens, used=used), True
            except SessionGoneError:
                current = await self.find_moved(current)
            except SessionConflictError:
                if attempt:
                    await back_off(attempt)
                current = await self.load(current.key) or await self.find_moved(current)
        msg = "other processes kept changing the session"
        raise SessionConflictError(msg)

    async def find_moved(self, lost: HeldTokens) -> HeldTokens | None:
        """Return the session that continues `lost` under a new id, or None.

        A regenerated session keeps its tokens. The same `family` or refresh token means the same login.
        """
        async for stored in in_turns(await self._store.find(SessionIndex(user=lost.identity.user_key))):
            held = self.read(stored)
            if held is not None and _same_login(held.tokens, lost.tokens):
                return held
        return None

    async def _swap(self, held: HeldTokens, tokens: TokenSet, *, used: bool) -> HeldTokens:
        record = msgspec.structs.replace(held.record, vault=self._vault.seal(tokens, held.identity))
        expires_at = held.expires_at
        if used:
            now = self._sessions.clock.now()
            expires_at = max(expires_at, self._sessions.timeouts.with_idle(record.idle).expiry(now, record.absolute_expires_at))
        version = await self._store.replace(held.key, entry_of(record, expires_at), version=held.version)
        return HeldTokens(held.key, version, expires_at, record, held.identity, tokens)

    def read(self, stored: StoredSession) -> HeldTokens | None:
        """Return the tokens of a stored session, or None."""
        try:
            record = snapshot_of(stored).record
        except UndecodableError:
            return None
        tokens = self._vault.open(record.vault, record.identity)
        if tokens is None or record.identity is None:
            return None
        return HeldTokens(stored.key, stored.version, stored.entry.expires_at, record, record.identity, tokens)


def _same_login(one: TokenSet, other: TokenSet) -> bool:
    if one.family or other.family:
        return one.family == other.family
    return one.refresh_token is not None and one.refresh_token == other.refresh_token
