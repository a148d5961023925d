"""The store contract on a real MariaDB, and what only a server can do wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from session_core.stores.base import SessionStore
from session_core.stores.sql.store import SqlStore
from session_core.testing import FakeClock, SessionStoreContract


class TestMariadbStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, mariadb_url: str) -> AsyncIterator[SessionStore]:
        store = SqlStore(mariadb_url, clock=clock)
        await store.open()
        yield store
        await store.close()
