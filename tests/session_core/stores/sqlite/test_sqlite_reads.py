"""The reads of one event loop turn are one statement; each gets its result, and failed ones are repeated alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry
from session_core.stores.sqlite.store import SqliteStore
from session_core.testing import FakeClock
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio
FOREVER = 2**52


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    async with opened_store(SqliteStore(path, clock=clock, timeout=30)) as store:
        await asyncio.gather(*(store.create(str(number), Entry(b"%d" % number, FOREVER)) for number in range(200)))
        yield store


def statements_of(store: SqliteStore) -> list[str]:
    seen: list[str] = []
    reader = store._reader
    assert reader is not None
    reader.set_trace_callback(seen.append)
    return seen


@pytest.mark.parametrize(("loads", "statements"), [(1, 1), (3, 1), (64, 1), (65, 2), (200, 4)])
async def test_the_reads_of_one_turn_are_one_statement(loads: int, statements: int, store: SqliteStore) -> None:
    seen = statements_of(store)
    found = await asyncio.gather(*(store.load(str(number)) for number in range(loads)))
    assert [each and each.entry.data for each in found] == [b"%d" % number for number in range(loads)]
    assert len(seen) == statements


async def test_each_read_gets_its_own_result(store: SqliteStore, clock: FakeClock) -> None:
    """A repeated session, a missing one, an expired one, and one whose caller was cancelled."""
    await store.create("over", Entry(b"", clock.now() + 10))
    clock.advance(seconds=1)
    leaving = asyncio.ensure_future(store.load("3"))
    await asyncio.sleep(0)
    leaving.cancel()
    found = await asyncio.gather(*(store.load(key) for key in ("1", "no such", "1", "over", "", "2")))
    assert [each and each.entry.data for each in found] == [b"1", None, b"1", None, None, b"2"]


async def test_reads_that_fail_together_are_repeated_alone(store: SqliteStore) -> None:
    reader = store._reader
    assert reader is not None
    refused: list[str] = []

    def refuse_together(action: int, *_: str | None) -> int:
        """Preparing the combined statement fails once."""
        if action == sqlite3.SQLITE_SELECT and not refused:
            refused.append("")
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    reader.set_authorizer(refuse_together)
    found = await asyncio.gather(*(store.load(key) for key in "123"))
    assert refused
    assert [each and each.entry.data for each in found] == [b"1", b"2", b"3"]


async def test_reads_of_a_store_that_is_closed_meanwhile_are_outages(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    reading = [asyncio.ensure_future(store.load(key)) for key in "12"]
    await asyncio.sleep(0)
    await store.close()
    results = await asyncio.gather(*reading, return_exceptions=True)
    assert [type(result) for result in results if result is not None] in ([StoreUnavailableError] * 2, [])


def test_two_event_loops_can_read_at_once(path: Path) -> None:
    """An application in a test client's thread, beside another one."""
    store = SqliteStore(path, timeout=30)

    async def fill() -> None:
        await store.open()
        await asyncio.gather(*(store.create(str(number), Entry(b"%d" % number, FOREVER)) for number in range(20)))

    async def read() -> None:
        for _ in range(50):
            found = await asyncio.gather(*(store.load(str(number)) for number in range(20)))
            wrong.extend(number for number, each in enumerate(found) if each is None or each.entry.data != b"%d" % number)

    wrong: list[int] = []
    asyncio.run(fill())
    threads = [threading.Thread(target=lambda: asyncio.run(read())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    asyncio.run(store.close())


async def abandon(store: SqliteStore) -> None:
    """Leave a pending read behind with its event loop."""
    task = asyncio.ensure_future(store.load("1"))
    await asyncio.sleep(0)
    task.cancel()


def test_a_read_pending_in_a_closed_event_loop_blocks_no_later_one(path: Path) -> None:
    store = SqliteStore(path, timeout=30)
    asyncio.run(store.open())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(abandon(store))
    loop.close()
    assert asyncio.run(asyncio.wait_for(store.load("1"), 60)) is None
    asyncio.run(store.close())
