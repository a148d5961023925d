"""Your own store, and the contract tests that check it: `uv run --group dev pytest examples/own_store.py`.

A store keeps opaque bytes by session key, with a version, an expiry and two indexes. This one keeps everything in one
dictionary and rewrites one JSON file after each change: short, durable, and for one process only.
The docstrings of `session_core.stores.SessionStore` are the contract.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from session_core import Clock, SessionConflictError, SessionGoneError, SessionStore, SystemClock
from session_core.stores import Entry, SessionIndex, StoreCapabilities, StoredSession, check_deadline
from session_core.testing import FakeClock, SessionStoreContract


class JsonStore:
    """Sessions in one JSON file. No method awaits anything, so each is one atomic step.

    Before a change, a method checks the deadline: after `store_timeout` the client has got 503, and nothing may change.
    """

    # At start, missing capabilities are logged, and settings that need them are refused.
    capabilities = StoreCapabilities(atomic=True, indexed=False, shared=False, durable=True, native_expiry=False)

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        """Take the file's path; `open` reads it."""
        self._path = path
        self._clock = clock or SystemClock()
        self._records: dict[str, StoredSession] = {}
        self._successors: dict[str, tuple[str, int]] = {}
        self._claims: dict[str, int] = {}

    # -- opening and closing -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the file, if there is one."""
        if not self._path.exists():
            return
        kept = json.loads(self._path.read_text())
        self._records = {key: _from_json(key, record) for key, record in kept["records"].items()}
        self._successors = {old: (new, until) for old, (new, until) in kept["successors"].items()}
        self._claims = kept["claims"]

    async def close(self) -> None:
        """Nothing is open between calls."""

    async def ping(self) -> None:
        """Write the file, to detect a full disk or missing permissions."""
        self._save()

    # -- one session -------------------------------------------------------------------------------------------------

    async def load(self, key: str) -> StoredSession | None:
        """Return the record while it is live: absent and expired are the same."""
        stored = self._records.get(key)
        return stored if stored and stored.entry.expires_at > self._clock.now() else None

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """Store a new record. Never overwrites another."""
        check_deadline()
        if await self.load(key):
            raise SessionConflictError
        evicted = await self._make_room(entry, limit)
        self._records[key] = StoredSession(key, 1, entry)
        self._save()
        return evicted

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """Overwrite the record of this version only: compare-and-swap."""
        check_deadline()
        await self._expect(key, version)
        self._records[key] = StoredSession(key, version + 1, entry)
        self._save()
        return version + 1

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """Move the record to a new key, in one step; a `delete` of the old key finds the new one for a while."""
        check_deadline()
        await self._expect(old_key, version)
        if await self.load(new_key):
            raise SessionConflictError
        del self._records[old_key]
        evicted = await self._make_room(entry, limit)
        self._records[new_key] = StoredSession(new_key, 1, entry)
        self._successors[old_key] = (new_key, successor_until)
        self._save()
        return evicted

    async def touch(self, key: str, expires_at: int) -> bool:
        """Move the expiry forward, never back; the version stays."""
        check_deadline()
        stored = await self.load(key)
        if stored is None:
            return False
        if expires_at > stored.entry.expires_at:
            old = stored.entry
            entry = Entry(old.data, expires_at, old.user, old.op_session, old.rank)
            self._records[key] = StoredSession(key, stored.version, entry)
            self._save()
        return True

    async def delete(self, key: str) -> tuple[str, ...]:
        """End the session under this key and under those it was rotated to."""
        check_deadline()
        deleted = []
        next_key: str | None = key
        while next_key:
            if await self.load(next_key):
                deleted.append(next_key)
            self._records.pop(next_key, None)
            successor, until = self._successors.pop(next_key, (None, 0))
            next_key = successor if until > self._clock.now() else None
        self._save()
        return tuple(deleted)

    # -- many sessions -----------------------------------------------------------------------------------------------

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """Examine every record, as `indexed=False` declares."""
        found = [stored async for stored in self.scan()]
        if index.user is not None:
            return [stored for stored in found if stored.entry.user == index.user]
        return [stored for stored in found if stored.entry.op_session == index.op_session]

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """End all sessions of an index but one."""
        check_deadline()
        keys = tuple(stored.key for stored in await self.find(index) if stored.key != keep)
        for key in keys:
            del self._records[key]
        self._save()
        return keys

    async def delete_expired(self, limit: int = 1000) -> int:
        """Remove expired records, successors and claims, at most `limit` of them."""
        now = self._clock.now()
        dead: list[tuple[dict[str, Any], str]] = []
        dead += [(self._records, key) for key, stored in self._records.items() if stored.entry.expires_at <= now]
        dead += [(self._successors, key) for key, (_, until) in self._successors.items() if until <= now]
        dead += [(self._claims, name) for name, until in self._claims.items() if until <= now]
        for place, key in dead[:limit]:
            del place[key]
        self._save()
        return len(dead[:limit])

    async def scan(self) -> AsyncIterator[StoredSession]:
        """Iterate over all live records."""
        for key in list(self._records):
            stored = await self.load(key)
            if stored:
                yield stored

    # -- single use --------------------------------------------------------------------------------------------------

    async def claim(self, name: str, expires_at: int) -> bool:
        """Return True for the first caller only."""
        check_deadline()
        if await self.claimed_until(name) is not None:
            return False
        self._claims[name] = expires_at
        self._save()
        return True

    async def claimed_until(self, name: str) -> int | None:
        """Return until when a name is taken."""
        until = self._claims.get(name, 0)
        return until if until > self._clock.now() else None

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _expect(self, key: str, version: int) -> None:
        stored = await self.load(key)
        if stored is None:
            raise SessionGoneError
        if stored.version != version:
            raise SessionConflictError

    async def _make_room(self, entry: Entry, limit: int) -> tuple[str, ...]:
        if limit <= 0 or entry.user is None:
            return ()
        mine = sorted(await self.find(SessionIndex(user=entry.user)), key=lambda stored: stored.entry.rank)
        evicted = tuple(stored.key for stored in mine[: max(len(mine) - limit + 1, 0)])
        for key in evicted:
            del self._records[key]
        return evicted

    def _save(self) -> None:
        # A new file that takes the old one's name: a crash leaves one of the two, never half of one.
        draft = self._path.with_suffix(".new")
        records = {key: _to_json(stored) for key, stored in self._records.items()}
        draft.touch(mode=0o600)
        draft.write_text(json.dumps({"records": records, "successors": self._successors, "claims": self._claims}))
        draft.replace(self._path)


def _to_json(stored: StoredSession) -> list[Any]:
    entry = stored.entry
    data = b64encode(entry.data).decode()
    return [stored.version, data, entry.expires_at, entry.user, entry.op_session, entry.rank]


def _from_json(key: str, record: list[Any]) -> StoredSession:
    version, data, expires_at, user, op_session, rank = record
    return StoredSession(key, version, Entry(b64decode(data), expires_at, user, op_session, rank))


class TestJsonStore(SessionStoreContract):
    """The whole contract, races included."""

    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SessionStore]:
        """Give each test an open, empty store that follows the contract's clock."""
        store = JsonStore(tmp_path / "sessions.json", clock=clock)
        await store.open()
        yield store
        await store.close()
