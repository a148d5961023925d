"""Group commit: waiting steps share a transaction, each has its own result, and none is applied after its deadline."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.stores.base import Entry
from session_core.stores.guarded import GuardedStore
from session_core.stores.sqlite import writer
from session_core.stores.sqlite.store import SqliteStore
from session_core.stores.sqlite.writer import Writer
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio
FOREVER = 2**52


@pytest.fixture(autouse=True)
def groups_are_not_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine would make the groups smaller."""
    monkeypatch.setattr(writer, "_SECONDS_IN_LOOP", 60)


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened_store(SqliteStore(path, timeout=30)) as store:  # a loaded machine must not cause an outage
        yield store


def writer_of(store: SqliteStore) -> Writer:
    return store._opened()[1]


def entry(data: bytes = b"") -> Entry:
    return Entry(data, FOREVER)


async def data_of(store: SqliteStore, *keys: str) -> list[bytes | None]:
    found = [await store.load(key) for key in keys]
    return [each.entry.data if each else None for each in found]


class Commits:
    """The commits of a store: the number of steps that were not refused."""

    def __init__(self, writer: Writer) -> None:
        self.steps: list[int] = []
        self._commit: Callable[[list[Any]], bool] = writer._commit
        writer._commit = self._committed  # type: ignore[method-assign]

    def _committed(self, group: list[Any]) -> bool:
        done = self._commit(group)
        if done:
            self.steps.append(sum(step.error is None for step in group))
        return done


@contextmanager
def busy_thread(store: SqliteStore) -> Iterator[None]:
    """The next commit does not start before the end of this block."""
    go_on = threading.Event()
    writer_of(store)._thread.submit(go_on.wait)
    try:
        yield
    finally:
        go_on.set()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - waits for a state of the store, which sends no event
            await asyncio.sleep(0.001)


async def test_the_writes_of_one_turn_are_one_commit(store: SqliteStore) -> None:
    commits = Commits(writer_of(store))
    await asyncio.gather(*(store.create(str(number), entry()) for number in range(50)))
    assert commits.steps == [50]


async def test_a_group_does_not_block_the_event_loop_for_long(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps beyond the time limit form the next group."""
    monkeypatch.setattr(writer, "_SECONDS_IN_LOOP", 0)
    commits = Commits(writer_of(store))
    await asyncio.gather(*(store.create(str(number), entry()) for number in range(3)))
    assert commits.steps == [1, 1, 1]


async def test_steps_that_arrive_during_a_commit_are_the_next_group(store: SqliteStore) -> None:
    commits = Commits(writer_of(store))
    with busy_thread(store):
        first = asyncio.create_task(store.create("first", entry()))
        await until(lambda: not writer_of(store)._waiting and writer_of(store)._connection.in_transaction)
        others = [asyncio.create_task(store.create(str(number), entry())) for number in range(50)]
        await asyncio.sleep(0)
        assert await store.load("first") is None  # readers see committed data without waiting
    await asyncio.gather(first, *others)
    assert commits.steps == [1, 50]


async def test_each_step_of_a_group_has_its_own_result(store: SqliteStore) -> None:
    """A conflict, a missing session, an oversized one, an unbindable value, and a cancelled caller."""
    for key in ("a", "b", "c", "large", "odd", "left"):
        await store.create(key, entry(b"old"))
    await store.replace("b", entry(b"newer"), version=1)
    writer_of(store)._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    commits = Commits(writer_of(store))
    left = asyncio.create_task(store.replace("left", entry(b"new"), version=1))
    calls = [
        store.replace("a", entry(b"new"), version=1),
        store.replace("b", entry(b"new"), version=1),
        store.replace("gone", entry(b"new"), version=1),
        store.replace("large", entry(bytes(20_000)), version=1),
        store.replace("odd", Entry(b"new", FOREVER, "\ud800"), version=1),
        store.delete("c"),
        store.claim("name", FOREVER),
    ]
    answers = asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    left.cancel()
    results = await answers
    assert [each if not isinstance(each, BaseException) else type(each) for each in results] == [
        2, SessionConflictError, SessionGoneError, StoreUnavailableError, UnicodeEncodeError, ("c",), True
    ]  # fmt: skip
    assert "SQLITE_TOOBIG" in str(results[3]) or "DataError" in str(results[3])
    assert commits.steps == [3]
    assert await data_of(store, "a", "b", "c", "large", "odd", "left") == [b"new", b"newer", None, b"old", b"old", b"old"]


async def test_a_step_that_fails_half_way_is_rolled_back_alone(store: SqliteStore) -> None:
    """A rotation whose new record is too large has already retired the old one."""
    for key in ("a", "b", "c"):
        await store.create(key, entry(b"old"))
    writer_of(store)._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    commits = Commits(writer_of(store))
    results = await asyncio.gather(
        store.replace("a", entry(b"new"), version=1),
        store.rotate("b", "large", entry(bytes(20_000)), version=1, successor_until=FOREVER),
        store.replace("c", entry(b"new"), version=1),
        return_exceptions=True,
    )
    assert results[0] == results[2] == 2
    assert isinstance(results[1], StoreUnavailableError)
    assert await data_of(store, "a", "b", "c", "large") == [b"new", b"old", b"new", None]
    assert commits.steps == [1, 1]  # one by one, after the group was rolled back
    await asyncio.gather(*(store.replace(key, entry(b"newer"), version=2) for key in ("a", "c")))
    assert commits.steps == [1, 1, 2]  # and together again


async def test_a_full_disk_in_a_group_fails_only_the_steps_that_do_not_fit(store: SqliteStore) -> None:
    for key in ("a", "b", "large"):
        await store.create(key, entry(b"old"))
    connection = writer_of(store)._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    results = await asyncio.gather(
        store.replace("a", entry(b"new"), version=1),
        store.replace("large", entry(bytes(50_000)), version=1),
        store.replace("b", entry(b"new"), version=1),
        return_exceptions=True,
    )
    assert results[0] == results[2] == 2
    assert "(SQLITE_FULL)" in str(results[1])
    assert await data_of(store, "a", "large", "b") == [b"new", b"old", b"new"]
    connection.execute(f"PRAGMA max_page_count = {2**30}")
    assert await store.replace("large", entry(bytes(50_000)), version=1) == 2


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Every write of this process beyond that file position fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_failed_commit_is_repeated_session_by_session(store: SqliteStore, path: Path) -> None:
    """The WAL has room for one small transaction, but not for the group."""
    keys = [str(number) for number in range(40)]
    await asyncio.gather(*(store.create(key, entry(bytes(3000))) for key in keys))
    log = path.with_name("sessions.db-wal")
    with files_no_longer_than(log.stat().st_size + 12 * 4200):
        results = await asyncio.gather(
            *(store.replace(key, entry(b"x" * 3000), version=1) for key in keys), return_exceptions=True
        )
        written = [key for key, result in zip(keys, results, strict=True) if result == 2]
        refused = [result for result in results if result != 2]
        assert 0 < len(written) < len(keys)
        assert {type(result) for result in refused} == {StoreUnavailableError}
        assert await data_of(store, *keys) == [b"x" * 3000 if key in written else bytes(3000) for key in keys]
    # A refused step is not applied later, not even by a recovery from the WAL after a crash.
    other = SqliteStore(path)
    await other.open()
    assert await data_of(other, *keys) == [b"x" * 3000 if key in written else bytes(3000) for key in keys]
    await other.close()
    await asyncio.gather(*(store.replace(key, entry(b"y"), version=2 if key in written else 1) for key in keys))


async def test_a_lock_held_too_long_is_an_outage_in_time_and_nothing_is_applied_later(path: Path) -> None:
    """Every writing step, first in the queue or behind others. Reads continue."""
    store = SqliteStore(path)
    await store.open()
    await store.create("a", Entry(b"old", FOREVER, "u", "o"))
    store._timeout = 0.3
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    calls = [
        store.create("new", Entry(b"", FOREVER, "u"), limit=1),
        store.replace("a", entry(b"new"), version=1),
        store.rotate("a", "b", entry(b"new"), version=1, successor_until=FOREVER),
        store.touch("a", FOREVER + 1),
        store.delete("a"),
        store.claim("name", FOREVER),
        store.ping(),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - began < 30
    store._timeout = 60
    assert {type(result) for result in results} == {StoreUnavailableError}
    assert {str(result) for result in results} == {"the session store did not start the step in time"}
    assert all(isinstance(result, StoreUnavailableError) and result.not_applied for result in results)
    assert await data_of(store, "a", "b", "new") == [b"old", None, None]
    other.execute("ROLLBACK")
    other.close()
    await store.ping()
    stored = await store.load("a")
    assert stored is not None
    assert (stored.version, stored.entry) == (1, Entry(b"old", FOREVER, "u", "o"))
    assert await data_of(store, "b", "new") == [None, None]
    assert await store.claimed_until("name") is None
    await store.close()


async def test_the_store_waits_for_a_short_lock(store: SqliteStore, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    claiming = asyncio.create_task(store.claim("name", FOREVER))
    await until(lambda: bool(writer_of(store)._waiting))
    assert await store.load("a") is None
    other.execute("ROLLBACK")
    other.close()
    assert await claiming


async def test_a_deadline_that_passes_before_the_commit_is_respected(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements ran and the disk was slow: late steps are rolled back, and the others are committed without them."""
    await store.create("late", entry(b"old"))
    await store.create("in time", entry(b"old"))
    of_store = writer_of(store)

    def overwrite(key: str) -> Callable[[sqlite3.Connection], int]:
        return lambda connection: connection.execute("UPDATE sessions SET data = x'01' WHERE key = ?", (key,)).rowcount

    with busy_thread(store):
        late = of_store.write(overwrite("late"), time.monotonic() + 3600)
        in_time = of_store.write(overwrite("in time"), time.monotonic() + 10_000)
        await until(lambda: of_store._connection.in_transaction)
        now = time.monotonic() + 5000
        monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now))
        assert not late.done()
    with pytest.raises(StoreUnavailableError, match="in time"):
        await late
    assert await in_time == 1
    assert await data_of(store, "late", "in time") == [b"old", b"\x01"]


async def test_a_request_answered_with_503_is_never_applied(path: Path) -> None:
    """Through the guard, which cancels the call; with a stalled disk before and after the statements."""

    async def ignore(reason: str) -> None:
        del reason

    store = SqliteStore(path)
    await store.open()
    await store.create("a", entry(b"old"))
    guarded = GuardedStore(store, timeout=0.1, on_outage=ignore)
    guarded._opened = True  # without a deadline for it
    with busy_thread(store):
        calls = [guarded.replace("a", entry(b"new"), version=1), guarded.claim("name", FOREVER)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, StoreUnavailableError)
        with pytest.raises(StoreUnavailableError):
            await guarded.delete("a")
    await store.ping()
    assert await data_of(store, "a") == [b"old"]
    assert await store.claimed_until("name") is None
    await store.close()


async def test_a_caller_cancelled_before_its_transaction_withdraws_its_step(store: SqliteStore) -> None:
    with busy_thread(store):
        first = asyncio.create_task(store.create("first", entry()))
        await until(lambda: writer_of(store)._connection.in_transaction)
        leaving = asyncio.create_task(store.create("second", entry()))
        await until(lambda: bool(writer_of(store)._waiting))
        leaving.cancel()
    await first
    await store.ping()
    assert await data_of(store, "first", "second") == [b"", None]


async def test_close_waits_for_steps_in_progress(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    go_on = threading.Event()
    writer_of(store)._thread.submit(go_on.wait)
    writes = [asyncio.create_task(store.create(str(number), entry())) for number in range(2)]
    await until(lambda: writer_of(store)._connection.in_transaction)
    writes.append(asyncio.create_task(store.create("2", entry())))  # not in that commit
    await until(lambda: bool(writer_of(store)._waiting))
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await store.create("after", entry())
    go_on.set()
    await closing
    await asyncio.gather(*writes)
    await store.open()
    assert await data_of(store, "0", "1", "2", "after") == [b"", b"", b"", None]
    await store.close()


def test_a_store_is_used_in_one_event_loop_after_another(path: Path) -> None:
    """Also when the previous one ended in the middle of a commit."""
    store = SqliteStore(path)
    begun, go_on = threading.Event(), threading.Event()

    async def begin() -> None:
        await store.open()
        await store.create("a", entry())
        commit: Callable[[list[Any]], bool] = writer_of(store)._commit

        def commit_later(group: list[Any]) -> bool:
            begun.set()
            go_on.wait(30)
            return commit(group)

        writer_of(store)._commit = commit_later  # type: ignore[method-assign]
        task = asyncio.create_task(store.replace("a", entry(), version=1))
        await until(begun.is_set)
        del task

    async def go_on_there() -> None:
        stored = await store.load("a")
        assert stored is not None
        assert await store.replace("a", entry(b"2"), version=stored.version) == stored.version + 1
        await asyncio.gather(*(store.create(str(number), entry()) for number in range(5)))

    async def end() -> None:
        await store.close()
        await store.open()
        assert await data_of(store, "a", "4") == [b"2", b""]
        await store.close()

    asyncio.run(begin())
    threading.Timer(0.1, go_on.set).start()
    asyncio.run(go_on_there())
    asyncio.run(end())


async def test_an_error_of_the_writer_itself_reaches_every_caller(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    of_store = writer_of(store)
    monkeypatch.setattr(of_store, "_run", lambda group: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await store.claim("name", FOREVER)
    monkeypatch.undo()
    assert await store.claim("name", FOREVER)
