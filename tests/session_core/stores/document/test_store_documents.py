"""Guarantees between processes without compare-and-swap, step by step in random orders, and their limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import SessionIndex, SessionStore
from session_core.stores.document.steps import DocumentSteps
from session_core.stores.document.store import DocumentStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.contract.one_process import OneProcessContract
from tests.session_core.stores.document.stepped_documents import CAPABILITIES, SteppedDocuments, processes
from tests.session_core.stores.turns import MINUTE, OP_SESSION, USER, Turns, entry_for, live, write_meets_end
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio
ORDERS = 150


class _OneStore:
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        (store,), _, _ = processes(1, clock)
        async with opened_store(store):
            yield store


class TestDocuments(_OneStore, SessionStoreContract): ...


class TestOneProcess(_OneStore, OneProcessContract):
    rounds = 20


async def _a_write_meets_an_end(seed: int, end: str, write: str, kind: type[DocumentStore] = DocumentStore) -> list[str]:
    """Run both concurrently; return the live sessions after the end was acknowledged and the write is over."""
    clock = FakeClock()
    (first, second, third), turns, _ = processes(3, clock, kind)
    await write_meets_end(first, second, turns, clock, seed, write, end, most=16)
    alive = await live(third, "old", "new")
    clock.advance(minutes=89)
    await third.delete_expired()
    return alive + await live(third, "old", "new")


@pytest.mark.parametrize("end", ["delete", "delete_by_user", "delete_by_op_session"])
@pytest.mark.parametrize("write", ["replace", "touch", "rotate"])
async def test_a_concurrent_write_of_another_process_revives_nothing(end: str, write: str) -> None:
    """Also when that process is killed between any two steps."""
    for seed in range(ORDERS):
        assert await _a_write_meets_an_end(seed, end, write) == [], seed


async def test_no_write_is_acknowledged_after_the_end() -> None:
    for seed in range(ORDERS):
        clock = FakeClock()
        (first, second), turns, _ = processes(2, clock)
        await first.create("key", entry_for(clock))
        calls = [first.replace("key", entry_for(clock, b"late"), version=1), second.delete("key")]
        written, ended = await turns.play(calls, random.Random(seed))
        assert ended == ("key",)
        assert written in {2, SessionGoneError}


@pytest.mark.parametrize("steps", range(22))
async def test_a_killed_rotation_leaves_one_key(steps: int) -> None:
    """At any time exactly one of the two keys is live, and it can be used and ended."""
    clock = FakeClock()
    (first, second), turns, _ = processes(2, clock)
    await first.create("old", entry_for(clock))
    rotation = first.rotate("old", "new", entry_for(clock), version=1, successor_until=clock.now() + MINUTE)
    (outcome,) = await turns.play([rotation], random.Random(0), killed=steps)
    (alive,) = await live(second, "old", "new")
    assert outcome in {"killed", ()}
    assert [stored.key for stored in await second.find(USER)] == [alive]
    clock.advance(minutes=30)
    assert await second.touch(alive, clock.now() + 60 * MINUTE) is True
    clock.advance(minutes=59)
    assert await live(second, "old", "new") == [alive]
    assert await second.delete_by(OP_SESSION) == (alive,)
    assert await live(second, "old", "new") == []


async def test_a_search_during_a_rotation_finds_the_session_once() -> None:
    for seed in range(ORDERS):
        clock = FakeClock()
        (first, second), turns, _ = processes(2, clock)
        await first.create("old", entry_for(clock))

        async def look(store: DocumentStore = second) -> tuple[bool, bool, bool]:
            return bool(await store.load("old")), bool(await store.load("new")), bool(await store.load("old"))

        rotation = first.rotate("old", "new", entry_for(clock), version=1, successor_until=clock.now() + MINUTE)
        _, seen = await turns.play([rotation, look()], random.Random(seed))
        assert seen in {(True, False, True), (True, False, False), (True, True, False), (False, True, False)}


async def test_revoking_all_sessions_meets_a_session_started_by_another_process() -> None:
    """It is listed or not; it is ended, or it started after the revocation and is live: never half of each."""
    for seed in range(ORDERS):
        clock = FakeClock()
        (first, second, third), turns, _ = processes(3, clock)
        await first.create("before", entry_for(clock))
        calls = [first.create("meanwhile", entry_for(clock)), second.delete_by(USER)]
        await turns.play(calls, random.Random(seed))
        alive = await live(third, "before", "meanwhile")
        assert "before" not in alive
        assert set(await third.delete_by(USER)) <= set(alive)
        assert await live(third, "meanwhile") == []


async def test_an_index_that_lost_a_key_is_repaired_when_the_session_is_used() -> None:
    clock = FakeClock()
    (first, second), turns, values = processes(2, clock)
    lost = 0
    for seed in range(ORDERS):
        values.clear()
        await turns.play([first.create("a", entry_for(clock)), second.create("b", entry_for(clock))], random.Random(seed))
        found = {stored.key for stored in await first.find(USER)}
        lost += found != {"a", "b"}
        for key in "ab":
            await first.touch(key, clock.now() + 61 * MINUTE)
        assert {stored.key for stored in await first.find(USER)} == {"a", "b"}
        assert await first.delete_by(USER)
        assert await live(second, "a", "b") == []
    assert lost, "if this never happens, the documentation is too cautious"


async def test_two_processes_can_both_get_one_claim() -> None:
    """The meaning of `atomic=False`, and why a relying party on such a store is refused."""
    results = set()
    for seed in range(ORDERS):
        clock = FakeClock()
        (first, second), turns, _ = processes(2, clock)
        both = [store.claim("name", clock.now() + MINUTE) for store in (first, second)]
        results.add(tuple(sorted(map(bool, await turns.play(both, random.Random(seed))))))
    assert (True, True) in results
    assert (False, True) in results


async def test_two_processes_can_lose_a_write() -> None:
    """The same; within one process the contract shows that none is lost."""
    results = set()
    for seed in range(ORDERS):
        clock = FakeClock()
        (first, second), turns, _ = processes(2, clock)
        await first.create("key", entry_for(clock))
        both = [store.replace("key", entry_for(clock), version=1) for store in (first, second)]
        results.add(tuple(sorted(map(str, await turns.play(both, random.Random(seed))))))
    assert ("2", "2") in results
    assert any("Conflict" in "".join(result) for result in results)


class _LooksBeforeItLeavesTheMark(DocumentStore):
    """The two steps in the opposite order, which looks equally correct."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._steps = _Careless(self._file, self._reader, self._index, self._locks)


class _Careless(DocumentSteps):
    async def end(self, key: str, index: SessionIndex | None = None, *, keep: str | None = None) -> list[str]:
        raw = (await self._file.documents.get([f"n:{key}"]))[0]
        ended = [key] if await self._end_one(key, index) else []
        return ended + (await super().end("new") if raw else [])


class _NoMarks(DocumentStore):
    """Deletes only the record, as a plain key-value session store does."""

    async def delete(self, key: str) -> tuple[str, ...]:
        await self._documents.delete(f"s:{key}")
        return (key,)


@pytest.mark.parametrize(
    ("kind", "write"), [(_LooksBeforeItLeavesTheMark, "rotate"), (_NoMarks, "replace"), (_NoMarks, "touch"), (_NoMarks, "rotate")]
)
async def test_random_orders_detect_a_store_that_revives_sessions(kind: type[DocumentStore], write: str) -> None:
    assert any([await _a_write_meets_an_end(seed, "delete", write, kind) for seed in range(ORDERS)])


async def test_an_unused_lock_is_forgotten() -> None:
    clock = FakeClock()
    (store,), _, _ = processes(1, clock)
    await asyncio.gather(*(store.create(f"key{number % 3}", entry_for(clock)) for number in range(9)), return_exceptions=True)
    assert store._locks._locks == {}


async def test_a_sweep_reads_each_record_once_in_its_lifetime() -> None:
    clock = FakeClock()
    (store,), _, _ = processes(1, clock)
    for number in range(20):
        await store.create(f"key{number}", entry_for(clock, user=None))
    await store.delete_expired()
    read: list[str] = []
    documents = store._documents
    original = documents.get

    async def get(names: list[str]) -> list[bytes | None]:
        read.extend(names)
        return await original(names)

    documents.get = get  # type: ignore[method-assign,assignment]
    assert await store.delete_expired() == 0
    assert read == []
    clock.advance(minutes=60)
    assert await store.delete_expired() == 20


async def test_a_taken_key_is_refused() -> None:
    clock = FakeClock()
    (first, second), _, _ = processes(2, clock)
    await first.create("key", entry_for(clock))
    with pytest.raises(SessionConflictError):
        await second.create("key", entry_for(clock))


async def test_a_session_can_be_read_while_its_file_is_written(clock: FakeClock) -> None:
    """A file that is written by truncating it first reads as empty for a moment."""
    values: dict[str, bytes] = {}

    class Truncated(SteppedDocuments):
        async def put(self, name: str, value: bytes, *, seconds: int) -> None:
            values[name] = b""
            for _ in range(20):
                await asyncio.sleep(0)
            await super().put(name, value, seconds=seconds)

    async with opened_store(DocumentStore(Truncated(values, Turns(), 0), CAPABILITIES, clock=clock)) as store:
        await store.create("k", entry_for(clock))
        for version in range(1, 30):
            key, new = f"k{version - 1}" if version > 1 else "k", f"k{version}"
            moving = asyncio.create_task(
                store.rotate(key, new, entry_for(clock), version=1, successor_until=clock.now() + MINUTE)
            )
            for _ in range(version * 7):
                await asyncio.sleep(0)
            stored = [found for found in (await store.load(key), await store.load(new)) if found is not None]
            assert stored, version
            assert {found.entry.data for found in stored} == {b"data"}, version
            assert len(await store.find(USER)) >= 1, version
            await moving
        assert await store.delete_by(USER) == ("k29",)
