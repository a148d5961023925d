"""The store contract on every store that needs no server."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from session_core.stores.base import SessionStore
from session_core.stores.memory import MemoryStore
from session_core.stores.sqlite.store import SqliteStore
from session_core.testing import FakeClock, SessionStoreContract
from session_core.testing.contract_deadlines import DeadlinesContract
from tests.support.opened_store import opened_store


class TestMemoryStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        async with opened_store(MemoryStore(clock=clock)) as store:
            yield store


class TestSqliteStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SessionStore]:
        async with opened_store(SqliteStore(tmp_path / "sessions.db", clock=clock)) as store:
            yield store

    @asynccontextmanager
    async def stalled(self, store: SessionStore) -> AsyncIterator[None]:
        """Another program holds the write lock."""
        assert isinstance(store, SqliteStore)
        other = sqlite3.connect(store._path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()


class TestSqliteStoreOnASlowDisk(DeadlinesContract):
    """The statements have run, and their commit is about to start."""

    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SessionStore]:
        async with opened_store(SqliteStore(tmp_path / "sessions.db", clock=clock)) as store:
            yield store

    @asynccontextmanager
    async def stalled(self, store: SessionStore) -> AsyncIterator[None]:
        assert isinstance(store, SqliteStore)
        go_on = threading.Event()
        store._opened()[1]._thread.submit(go_on.wait)
        yield
        go_on.set()
