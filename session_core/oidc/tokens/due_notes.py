"""Records in the session store when the access tokens of sessions expire; refreshes nothing.

A note is a small record whose index value is a digest of the minute in which the token expires. So the sessions that are due in a
minute are found by one index, whatever the number of sessions. A note contains no token and no id, and expires by itself. It may
be missing (a process was killed) or out of date (the session has ended, or has newer tokens): the reader checks the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import msgspec

from session_core.clock import Clock
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.identity import Identity
from session_core.ids import DIGEST_CHARS
from session_core.oidc.tokens.stored import HeldTokens
from session_core.oidc.tokens.vault import TokenSet
from session_core.sessions.notes import encode_note, note_digest, read_note
from session_core.stores.base import Entry, SessionIndex, SessionStore

__all__ = ("DueNote", "DueNotes", "grant_digest")

MINUTE_MS: Final = 60_000
_SHARDS: Final = 4
"""Indexes per minute: some stores rewrite a whole index for each new member."""
_KEPT_MS: Final = 24 * 3_600_000
"""How long a note is kept after its minute."""
_OVERLAP_MINUTES: Final = 10
"""Minutes that are read again: a node whose clock is behind may add notes to minutes that are already done."""
_PROGRESS_MS: Final = 30 * 24 * 3_600_000
_UNKNOWN_MINUTES: Final = 60


class DueNote(msgspec.Struct, frozen=True, array_like=True):
    """A session whose access token expires at `due` (Unix milliseconds). `grant` is a digest of its refresh token."""

    key: str
    user: str
    due: int
    grant: str

    @property
    def minute(self) -> int:
        """The minute of its index."""
        return self.due // MINUTE_MS


class DueNotes:
    """The notes of one application. Only `due` and `progress` raise `StoreUnavailableError`: a note must not fail a login."""

    def __init__(self, store: SessionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._begun = False

    async def add(self, key: str, identity: Identity, tokens: TokenSet, *, absolute_expires_at: int) -> None:
        """Add a note, unless the session cannot be refreshed or has no expiry."""
        if tokens.refresh_token is None or tokens.expires_at is None:
            return
        note = DueNote(key, identity.user_key, tokens.expires_at, grant_digest(tokens))
        until = min(absolute_expires_at, note.due + _KEPT_MS)
        data = encode_note(note)
        try:
            await self._begin()
            await self._store.create(_note_key(note), Entry(data, until, op_session=_index(note.minute, _shard(key))))
        except (StoreUnavailableError, SessionConflictError):
            return  # the first was logged; the second means that the note exists

    async def move(self, before: HeldTokens, after: HeldTokens) -> None:
        """Move the note of a session whose tokens were refreshed to its new minute."""
        await self.add(after.key, after.identity, after.tokens, absolute_expires_at=after.record.absolute_expires_at)
        if before.tokens.expires_at is not None and before.tokens.expires_at != after.tokens.expires_at:
            await self.drop(DueNote(before.key, before.identity.user_key, before.tokens.expires_at, ""))

    async def drop(self, note: DueNote) -> None:
        """Remove a note that is no longer needed."""
        try:
            await self._store.delete(_note_key(note))
        except StoreUnavailableError:
            return

    async def due(self, minute: int) -> list[DueNote]:
        """Return the notes of a minute (Unix time in minutes)."""
        found: dict[str, DueNote] = {}
        for shard in range(_SHARDS):
            for stored in await self._store.find(SessionIndex(op_session=_index(minute, shard))):
                if (note := read_note(stored.entry.data, DueNote)) is not None:
                    found[note.key] = note
        return list(found.values())

    async def minutes(self, until: int) -> AsyncIterator[int]:
        """Iterate over the minutes that a run must read, up to `until` (Unix milliseconds)."""
        now = self._clock.now() // MINUTE_MS
        done = await self._progress()
        first = now - _UNKNOWN_MINUTES if done is None else done - _OVERLAP_MINUTES
        for minute in range(max(first, now - _KEPT_MS // MINUTE_MS), until // MINUTE_MS + 1):
            yield minute

    async def done_before(self, minute: int) -> None:
        """Remember that all minutes before `minute` are done, as far as they are past."""
        done = min(minute, self._clock.now() // MINUTE_MS)
        stored = await self._store.load(_PROGRESS_KEY)
        try:
            if stored is None:
                await self._store.create(_PROGRESS_KEY, self._progress_entry(done))
            else:
                await self._store.replace(_PROGRESS_KEY, self._progress_entry(done), version=stored.version)
        except (SessionConflictError, SessionGoneError):
            return  # another run has stored its progress; skipped minutes are read again

    async def _begin(self) -> None:
        """Store, once, that there are no notes before now."""
        if not self._begun:
            with suppress(SessionConflictError):
                await self._store.create(_PROGRESS_KEY, self._progress_entry(self._clock.now() // MINUTE_MS))
            self._begun = True

    async def _progress(self) -> int | None:
        stored = await self._store.load(_PROGRESS_KEY)
        return None if stored is None else read_note(stored.entry.data, int)

    def _progress_entry(self, minute: int) -> Entry:
        return Entry(encode_note(minute), self._clock.now() + _PROGRESS_MS)


def grant_digest(tokens: TokenSet) -> str:
    """Return a digest of a refresh token, to recognize it."""
    return note_digest("due-grant", tokens.refresh_token or "")[:16]


def _index(minute: int, shard: int) -> str:
    return note_digest("due-minute", str(minute), str(shard))


def _shard(key: str) -> int:
    return key.encode()[0] % _SHARDS


def _note_key(note: DueNote) -> str:
    """A key in the form of a session key, but not derived from an id, so that no cookie can open it. The tag is the session's."""
    return note_digest("due-note", note.key, str(note.due)) + note.key[DIGEST_CHARS:]


_PROGRESS_KEY: Final = note_digest("due-progress") + "due"
