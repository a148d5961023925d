"""The store contract on every store of the library that needs no server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session_core.stores.base import SessionStore
from session_core.stores.file.store import FileStore
from session_core.stores.memory import MemoryStore
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock, SessionStoreContract


class TestMemoryStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        store = MemoryStore(clock=clock)
        await store.open()
        yield store
        await store.close()


class TestSqliteStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SessionStore]:
        store = SqlStore(f"sqlite+aiosqlite:///{tmp_path}/sessions.db", clock=clock)
        await store.open()
        yield store
        await store.close()


class TestFileStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SessionStore]:
        store = FileStore(tmp_path / "sessions", clock=clock)
        await store.open()
        yield store
        await store.close()
