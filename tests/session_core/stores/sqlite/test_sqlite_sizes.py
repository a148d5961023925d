"""Large cases: a user with very many sessions, a WAL kept long by a reader, many expired rows."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from session_core.stores.base import Entry, SessionIndex
from session_core.stores.sqlite import steps
from session_core.stores.sqlite.connection import WAL_BYTES
from session_core.stores.sqlite.store import SqliteStore
from session_core.testing import FakeClock
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio
FOREVER = 2**52
MANY = 10_000


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    async with opened_store(SqliteStore(path, clock=clock, timeout=60)) as store:  # a loaded machine must not cause an outage
        yield store


def fill(path: Path, count: int = MANY, *, expires_at: int = FOREVER, first: int = 0) -> None:
    """Sessions of one user, of rising rank."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    rows = [(f"k{number:06}", expires_at, number) for number in range(first, first + count)]
    columns = "key, version, data, expires_at, user_key, op_session_key, rank"
    connection.executemany(f"INSERT INTO sessions ({columns}) VALUES (?, 1, x'00', ?, 'u', 'o', ?)", rows)
    connection.execute("COMMIT")
    connection.close()


class Beside:
    """Concurrent activity during a call: the most rows changed in one turn of the event loop, and writes of other sessions."""

    def __init__(self, store: SqliteStore) -> None:
        self.most_rows = 0
        self.turns = 0
        self.writes = 0
        self._store = store

    async def run(self) -> None:
        connection = self._store._opened()[1]._connection
        before = connection.total_changes
        while True:
            await asyncio.sleep(0)
            self.most_rows = max(self.most_rows, connection.total_changes - before)
            before = connection.total_changes
            self.turns += 1

    async def write(self) -> None:
        await self._store.create("other", Entry(b"", FOREVER))
        while True:
            await self._store.replace("other", Entry(b"", FOREVER), version=self.writes + 1)
            self.writes += 1

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self.run()), asyncio.create_task(self.write())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_ending_very_many_sessions_lets_others_write_in_between(store: SqliteStore, path: Path) -> None:
    fill(path)
    async with Beside(store) as beside:
        ended = await store.delete_by(SessionIndex(user="u"), keep="k000007")
    assert len(set(ended)) == len(ended) == MANY - 1
    assert beside.most_rows <= steps.ROWS + 2
    assert beside.writes > MANY / steps.ROWS / 2
    assert [stored.key for stored in await store.find(SessionIndex(op_session="o"))] == ["k000007"]


async def test_listing_very_many_sessions_lets_others_go_on_in_between(store: SqliteStore, path: Path) -> None:
    fill(path)
    async with Beside(store) as beside:
        assert len({stored.key for stored in await store.find(SessionIndex(user="u"))}) == MANY
        assert len([stored async for stored in store.scan()]) >= MANY
        assert len(await store.trace([f"k{number:06}" for number in range(MANY)])) == MANY
    assert beside.turns >= 3 * (MANY / steps.ROWS - 1)


@pytest.mark.parametrize("expired", [False, True])
async def test_a_new_limit_lets_others_write_in_between(store: SqliteStore, path: Path, clock: FakeClock, expired: bool) -> None:
    """A login with a limit far below the user's sessions, and one that must skip thousands of expired sessions."""
    fill(path)
    fill(path, 3, first=MANY)
    if expired:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("UPDATE sessions SET expires_at = 1 WHERE rank < ?", (MANY,))
        connection.close()
    async with Beside(store) as beside:
        ended = await store.create("new", Entry(b"", FOREVER, "u", None, MANY + 9), limit=3)
    assert sorted(ended) == [f"k{number:06}" for number in range(MANY if expired else 0, MANY + 1)]
    assert beside.most_rows <= steps.ROWS + 2
    alive = {stored.key for stored in await store.find(SessionIndex(user="u"))}
    assert alive == {f"k{MANY + 1:06}", f"k{MANY + 2:06}", "new"}


async def test_the_session_being_rotated_is_never_ended_for_the_limit(store: SqliteStore, path: Path) -> None:
    fill(path, 500)
    entry = Entry(b"", FOREVER, "u", None, 0)
    ended = await store.rotate("k000000", "new", entry, version=1, successor_until=FOREVER, limit=2)
    assert sorted(ended) == [f"k{number:06}" for number in range(1, 499)]
    assert {stored.key for stored in await store.find(SessionIndex(user="u"))} == {"new", "k000499"}


async def test_sessions_rotated_meanwhile_are_ended_too(store: SqliteStore, path: Path) -> None:
    fill(path, 1000)
    entry = Entry(b"", FOREVER, "u", "o")

    async def rotate() -> list[str]:
        return [
            f"new{number}"
            for number in range(999, 900, -1)
            if await store.rotate(f"k{number:06}", f"new{number}", entry, version=1, successor_until=FOREVER) == ()
        ]

    rotating = asyncio.create_task(rotate())
    rotating.add_done_callback(lambda task: task.exception())  # the rest were ended before their rotation
    ended = await store.delete_by(SessionIndex(user="u"))
    await asyncio.wait([rotating])
    assert len(ended) == 1000
    assert await store.find(SessionIndex(user="u")) == []


async def test_sweeping_lets_others_write_in_between(store: SqliteStore, path: Path) -> None:
    fill(path, 2000, expires_at=1)
    for number in range(150):
        await store.claim(f"name{number}", 1)
    async with Beside(store) as beside:
        assert await store.delete_expired() == 1000
        assert await store.delete_expired(1500) == 1150
        assert await store.delete_expired() == 0
    assert beside.most_rows <= steps.ROWS + 2
    assert beside.writes > 10


async def write_megabytes(store: SqliteStore, megabytes: int) -> None:
    """Overwrite some sessions repeatedly, and read them all the time."""
    for _ in range(megabytes):
        stored = [await store.load(f"large{number}") for number in range(10)]
        await asyncio.gather(
            *(
                store.replace(f"large{number}", Entry(os.urandom(100_000), FOREVER), version=each.version if each else 0)
                for number, each in enumerate(stored)
            )
        )


def log_of(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


async def test_the_wal_stays_short_under_continuous_writers(store: SqliteStore, path: Path) -> None:
    """Also with several processes: none waits for a moment without commits, which would never come."""
    other = SqliteStore(path, timeout=60)
    await other.open()
    for number in range(10):
        await store.create(f"large{number}", Entry(os.urandom(100_000), FOREVER))
    busy = asyncio.create_task(Beside(other).write())
    longest = 0
    for _ in range(5 * WAL_BYTES // 2**20):
        await write_megabytes(store, 1)
        longest = max(longest, log_of(path))
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    await other.close()
    assert longest < 2 * WAL_BYTES


async def test_no_process_writes_during_a_checkpoint(store: SqliteStore, path: Path) -> None:
    """A checkpoint then copies the whole WAL; SQLite before 3.51.3 needs this, see ADR 0022."""
    other = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    checkpoints: list[bool] = []

    def try_to_write(statement: str) -> None:
        if "wal_checkpoint" in statement:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                checkpoints.append(True)
            else:
                checkpoints.append(False)
                other.execute("ROLLBACK")

    store._opened()[1]._checkpoints._connection.set_trace_callback(try_to_write)
    for number in range(10):
        await store.create(f"large{number}", Entry(os.urandom(100_000), FOREVER))
    await write_megabytes(store, 3 * WAL_BYTES // 2**20)
    other.close()
    assert len(checkpoints) >= 2
    assert all(checkpoints)


async def test_the_wal_is_short_again_after_a_long_reader(store: SqliteStore, path: Path) -> None:
    """For example a backup: while it reads, its snapshot must not be overwritten. Writers continue meanwhile."""
    for number in range(10):
        await store.create(f"large{number}", Entry(os.urandom(100_000), FOREVER))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT max(version) FROM sessions").fetchone()
    await write_megabytes(store, 6 * WAL_BYTES // 2**20)
    assert log_of(path) > 6 * WAL_BYTES
    assert reader.execute("SELECT max(version) FROM sessions").fetchone() == before
    reader.execute("COMMIT")
    reader.close()
    async with asyncio.timeout(60):
        while log_of(path) > WAL_BYTES:
            await write_megabytes(store, 1)
