"""A client or server killed between the statements of a batch and its commit leaves no change."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.store import SqlStore
from tests.session_core.stores.sql import sql_process
from tests.session_core.stores.sql.sql_faults import short_timeout
from tests.support.opened_store import opened_store
from tests.support.postgres_server import postgres_server

pytestmark = pytest.mark.anyio
FOREVER = 2**52
KEYS = [str(number) for number in range(8)]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    """A store with a session under each of the keys."""
    async with opened_store(SqlStore(url)) as store:
        await asyncio.gather(*(store.create(key, Entry(b"old", FOREVER)) for key in KEYS))
        yield store


async def rotate(store: SqlStore, key: str) -> tuple[str, ...]:
    return await store.rotate(key, f"{key} new", Entry(b"new", FOREVER, "user", "op"), version=1, successor_until=FOREVER)


async def stored(store: SqlStore) -> list[tuple[str, int, bytes]]:
    """The sessions under the old and the new keys."""
    found = [await store.load(key) for key in [*KEYS, *(f"{key} new" for key in KEYS)]]
    return [(each.key, each.version, each.entry.data) for each in found if each is not None]


BEFORE = [(key, 1, b"old") for key in KEYS]
AFTER = [(f"{key} new", 1, b"new") for key in KEYS]


async def test_a_process_killed_before_its_commit_leaves_all_sessions_unchanged(database: str) -> None:
    async with opened(database) as store:
        process = await asyncio.create_subprocess_exec(
            sys.executable, sql_process.__file__, database, str(len(KEYS)), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"at the commit\n"
            assert await stored(store) == BEFORE
        finally:
            process.kill()
            await process.wait()
        assert await stored(store) == BEFORE
        # Another process does not wait: the locks ended with the connection.
        assert await asyncio.gather(*(rotate(store, key) for key in KEYS)) == [()] * len(KEYS)
        assert await stored(store) == AFTER


async def test_a_server_killed_before_a_commit_gives_503_to_all_waiting_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as server:
        async with opened(server.url) as store:
            commit = PostgresqlLink.commit
            later: list[asyncio.Task[tuple[str, ...]]] = []

            async def kill(link: PostgresqlLink) -> None:
                monkeypatch.setattr(PostgresqlLink, "commit", commit)
                later.extend(asyncio.create_task(rotate(store, key)) for key in KEYS[4:])
                await asyncio.to_thread(server.kill)
                await commit(link)

            monkeypatch.setattr(PostgresqlLink, "commit", kill)
            with short_timeout(store, 5):
                results = await asyncio.gather(*(rotate(store, key) for key in KEYS[:4]), return_exceptions=True)
                results += await asyncio.gather(*later, return_exceptions=True)
            assert [type(result) for result in results] == [StoreUnavailableError] * len(KEYS)
            await asyncio.to_thread(server.start)
            assert await stored(store) == BEFORE
            assert await asyncio.gather(*(rotate(store, key) for key in KEYS)) == [()] * len(KEYS)
            assert await stored(store) == AFTER
