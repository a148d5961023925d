"""Refreshes the tokens of all sessions that are due, without reading others. Independent of requests and command lines."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from session_core.concurrency import in_turns
from session_core.errors import (
    ConfigurationError,
    DiscoveryError,
    LoginRequiredError,
    SessionConflictError,
    SessionGoneError,
    StoreUnavailableError,
    TokenExchangeError,
)
from session_core.oidc.batch_config import BatchRefresh
from session_core.oidc.refresh.refresh import TokenRefresh, is_another
from session_core.oidc.relying_parties import RelyingParties
from session_core.oidc.tokens.due_notes import DueNote, DueNotes, grant_digest
from session_core.oidc.tokens.stored import HeldTokens
from session_core.oidc.tokens.vault import TokenSet
from session_core.stores.base import SessionIndex

__all__ = ("BatchResult", "RefreshBatch")

_HOPELESS: Final = 5
"""Failures in a row, beyond the concurrency, after which a run stops."""


class BatchResult(msgspec.Struct, kw_only=True):
    """What a run did, in sessions."""

    due: int = 0
    """Sessions whose access token expires within the horizon."""
    refreshed: int = 0
    ended: int = 0
    """Logins that the provider has ended."""
    failed: int = 0
    """Not refreshed because of an outage; the next run tries again."""
    skipped: int = 0
    """Recorded as due, but ended, refreshed by another process, or no longer refreshable."""
    complete: bool = True
    """False when the run stopped early: at its limit, or after repeated failures."""


class RefreshBatch:
    """Refreshes the tokens of inactive users: `litestar sessions refresh-tokens`, or `POST /auth/refresh-tokens`."""

    def __init__(self, relying_parties: RelyingParties, refresh: TokenRefresh, notes: DueNotes, config: BatchRefresh) -> None:
        self._rps = relying_parties
        self._refresh = refresh
        self._notes = notes
        self.config = config
        if not relying_parties.sessions.store.capabilities.indexed:
            msg = "batch_refresh needs a store with indexes: this one would read every session for each minute"
            raise ConfigurationError(msg)

    async def run(
        self, *, horizon_seconds: int | None = None, concurrency: int | None = None, dry_run: bool = False
    ) -> BatchResult:
        """Refresh the sessions whose access tokens expire within the horizon; with `dry_run` only count them.

        Safe in several processes at once, and during requests. Does not extend sessions. Raises `StoreUnavailableError` when the
        notes cannot be read.
        """
        horizon = self.config.horizon_seconds if horizon_seconds is None else horizon_seconds
        run = _Run(self._rps.clock.now() + horizon * 1000, concurrency or self.config.concurrency, dry_run=dry_run)
        async for minute in self._notes.minutes(run.until):
            due = [note for note in await self._notes.due(minute) if note.due <= run.until]
            notes = [note for note in due if note.key not in run.renewed]
            run.unfinished = run.unfinished or len(notes) < len(due)
            await self._refresh_all(run, notes)
            if run.stopped(self.config.max_sessions):
                run.result.complete = False
                break
            if not run.unfinished:
                run.done = minute + 1
        if not dry_run and run.done is not None:
            await self._notes.done_before(run.done)
        return run.result

    async def _refresh_all(self, run: _Run, notes: list[DueNote]) -> None:
        todo = iter(notes)

        async def work() -> None:
            for note in todo:
                if run.stopped(self.config.max_sessions):
                    run.unfinished = True
                    return
                await self._refresh_one(run, note)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(run.concurrency, len(notes))):
                group.create_task(work())

    async def _refresh_one(self, run: _Run, note: DueNote) -> None:
        result = run.result
        try:
            held = await self._find(note)
            if held is None or not self._is_due(held.tokens, run.until):
                result.skipped += 1
                await self._tidy(run, note, held)
                return
            result.due += 1
            if run.dry_run:
                return
            renewed = await self._refresh.renew(
                held.key,
                held.identity,
                is_new=lambda tokens: is_another(tokens, held.tokens),
                is_usable=lambda _: False,
                end=self._refresh.end,
                used=False,
            )
        except LoginRequiredError:
            result.ended += 1
            run.outages = 0
            await self._notes.drop(note)
        except (TokenExchangeError, DiscoveryError, StoreUnavailableError, SessionConflictError, SessionGoneError):
            result.failed += 1
            run.outages += 1
            run.unfinished = True
        else:
            run.outages = 0
            result.refreshed += 1
            run.renewed.add(renewed.key)
            await self._tidy(run, note, renewed)

    async def _find(self, note: DueNote) -> HeldTokens | None:
        """Return the session of a note, also under a new id; None if it cannot be refreshed."""
        held = await self._refresh.store.load(note.key)
        if held is None:
            async for stored in in_turns(await self._rps.sessions.store.find(SessionIndex(user=note.user))):
                other = self._refresh.store.read(stored)
                if other is not None and grant_digest(other.tokens) == note.grant:
                    held = other
        return held if held is not None and self._rps.of_session(held.tokens.provider, held.identity) is not None else None

    async def _tidy(self, run: _Run, note: DueNote, held: HeldTokens | None) -> None:
        """Remove an outdated note; add one for a session without."""
        if run.dry_run or (held is not None and held.key == note.key and held.tokens.expires_at == note.due):
            return
        if held is not None:
            await self._notes.add(held.key, held.identity, held.tokens, absolute_expires_at=held.record.absolute_expires_at)
        await self._notes.drop(note)

    @staticmethod
    def _is_due(tokens: TokenSet, until: int) -> bool:
        return tokens.refresh_token is not None and tokens.expires_at is not None and tokens.expires_at <= until


class _Run:
    """The progress of one run."""

    def __init__(self, until: int, concurrency: int, *, dry_run: bool) -> None:
        self.until = until
        self.concurrency = concurrency
        self.dry_run = dry_run
        self.result = BatchResult()
        self.done: int | None = None
        """The first minute that is not done."""
        self.renewed: set[str] = set()
        """Sessions already handled in this run. Tokens that live shorter than the horizon are due again in a later minute of the
        same run, which must not redeem them again."""
        self.outages = 0
        self.unfinished = False
        """Whether something is left for the next run in the minutes from here on."""

    def stopped(self, limit: int) -> bool:
        """Whether to begin no more."""
        return self.result.refreshed + self.result.ended >= limit or self.outages >= self.concurrency + _HOPELESS
