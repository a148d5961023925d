"""The store contract on conditional writes only, with concurrent processes step by step in random orders."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from time import monotonic

import pytest

from session_core.errors import SessionConflictError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex, SessionStore
from session_core.stores.conditional import store as store_module
from session_core.stores.conditional import transactions as transactions_module
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.format import Held, decode
from session_core.stores.conditional.store import ConditionalStore
from session_core.stores.conditional.transactions import Found, Transactions
from session_core.stores.deadlines import Step
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.conditional.stepped_engine import SteppedEngine, processes
from tests.session_core.stores.turns import MINUTE, OP_SESSION, USER, entry_for, live, write_meets_end
from tests.support.opened_store import opened_store


class TestConditionalStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        (store,), _, _ = processes(1, clock)
        async with opened_store(store):
            yield store


pytestmark = pytest.mark.anyio
ORDERS = 60


@pytest.fixture
def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff yields to the event loop instead of sleeping."""

    async def back_off(attempt: int) -> None:
        del attempt
        await asyncio.sleep(0)

    for module in (store_module, transactions_module):
        monkeypatch.setattr(module, "back_off", back_off)


stepped = pytest.mark.usefixtures("in_turns")


async def _found(store: ConditionalStore, index: SessionIndex = USER) -> list[str]:
    return sorted(stored.key for stored in await store.find(index))


@stepped
@pytest.mark.parametrize("end", ["delete", "delete_by_user", "delete_by_op_session"])
@pytest.mark.parametrize("write", ["replace", "touch", "rotate"])
async def test_a_concurrent_write_of_another_process_revives_nothing(end: str, write: str) -> None:
    """Also when that process is killed between any two steps."""
    for seed in range(ORDERS):
        await _assert_the_end_wins(seed, end, write)


async def _assert_the_end_wins(seed: int, end: str, write: str) -> None:
    clock = FakeClock()
    (first, second, third), turns, _ = processes(3, clock)
    written, ended = await write_meets_end(first, second, turns, clock, seed, write, end, most=20)
    assert ended in ([("old",), ("new",)] if write == "rotate" else [("old",)]), seed
    assert (written == ()) <= (ended == ("new",)), seed
    assert await live(third, "old", "new") == [], seed
    assert await _found(third) == await _found(third, OP_SESSION) == [], seed


@stepped
@pytest.mark.parametrize("steps", range(34))
async def test_a_killed_rotation_leaves_one_key(steps: int) -> None:
    """At any time exactly one of the two keys is live, and it can be used and ended."""
    clock = FakeClock()
    (first, second), turns, _ = processes(2, clock)
    await first.create("old", entry_for(clock))
    rotation = first.rotate("old", "new", entry_for(clock), version=1, successor_until=clock.now() + MINUTE)
    (outcome,) = await turns.play([rotation], random.Random(steps), killed=steps)
    (alive,) = await live(second, "old", "new")
    assert outcome == "killed" or alive == "new"
    assert await _found(second) == await _found(second, OP_SESSION) == [alive]
    clock.advance(minutes=30)
    assert await second.touch(alive, clock.now() + 60 * MINUTE) is True
    clock.advance(minutes=59)
    assert await live(second, "old", "new") == [alive]
    assert await second.delete_by(OP_SESSION) == (alive,)
    assert await live(second, "old", "new") == []


@stepped
@pytest.mark.parametrize("steps", range(0, 50, 2))
async def test_a_killed_login_happens_completely_or_not_at_all(steps: int) -> None:
    """Including the session that it ends for the limit."""
    clock = FakeClock()
    (first, second), turns, _ = processes(2, clock)
    await first.create("before", entry_for(clock, rank=1))
    await first.create("anonymous", Entry(b"", clock.now() + 60 * MINUTE))
    until = clock.now() + MINUTE
    login = first.rotate("anonymous", "new", entry_for(clock, rank=2), version=1, successor_until=until, limit=1)
    (outcome,) = await turns.play([login], random.Random(steps), killed=steps)
    alive = await live(second, "before", "anonymous", "new")
    assert alive in [["before", "anonymous"], ["new"]]
    assert outcome in {"killed", ("before",)}
    assert await _found(second) == ["new" if alive == ["new"] else "before"]


_LOOKS = {(True, False, True), (True, False, False), (True, True, False), (False, True, False)}


async def _looks(seed: int, kind: type[Transactions] = Transactions) -> object:
    """Return whether the old, the new and again the old key were live during the rotation."""
    clock = FakeClock()
    (first, second), turns, _ = processes(2, clock)
    second._transactions = kind(second._documents, clock)
    await first.create("old", entry_for(clock))

    async def look() -> tuple[bool, bool, bool]:
        return bool(await second.load("old")), bool(await second.load("new")), bool(await second.load("old"))

    rotation = first.rotate("old", "new", entry_for(clock), version=1, successor_until=clock.now() + MINUTE)
    return (await turns.play([rotation, look()], random.Random(seed)))[1]


@stepped
async def test_a_session_being_rotated_is_found_once() -> None:
    assert {await _looks(seed) for seed in range(3 * ORDERS)} <= _LOOKS


class _TrustsAnAbsentDecision(Transactions):
    """Does not read the intent again: the decision may have been made, applied and removed meanwhile."""

    async def _judged(self, name: str, stored: Versioned | None) -> Found:
        held = decode(stored.value, Held) if stored is not None else None
        if stored is None or not isinstance(held, Held) or held.intent is None:
            return await super()._judged(name, stored)
        committed = await self._decision(held.intent, abort=False)
        return Found(name, held.intent.value if committed else held.value, held.until, stored.version, clean=False)


@stepped
async def test_random_orders_detect_a_reader_that_trusts_an_absent_decision() -> None:
    assert not {await _looks(seed, _TrustsAnAbsentDecision) for seed in range(3 * ORDERS)} <= _LOOKS


@stepped
async def test_find_misses_no_session_being_rotated() -> None:
    for seed in range(ORDERS):
        clock = FakeClock()
        (first, second), turns, _ = processes(2, clock)
        await first.create("old", entry_for(clock))
        await first.create("other", entry_for(clock))
        rotation = first.rotate("old", "new", entry_for(clock), version=1, successor_until=clock.now() + MINUTE)
        _, found = await turns.play([rotation, _found(second)], random.Random(seed))
        assert found in [["old", "other"], ["new", "other"]], seed


@stepped
async def test_logins_in_several_processes_never_exceed_the_limit() -> None:
    """One process is killed, often: each session is live and listed, or neither."""
    for seed in range(ORDERS):
        clock = FakeClock()
        stores, turns, _ = processes(4, clock)
        await stores[0].create("before", entry_for(clock))
        chance = random.Random(seed)
        killed = chance.randrange(30) if seed % 2 else None
        logins = [store.create(f"k{number}", entry_for(clock, rank=number), limit=2) for number, store in enumerate(stores)]
        outcomes = await turns.play(logins, chance, killed=killed)
        alive = await live(stores[3], "before", *(f"k{number}" for number in range(4)))
        assert len(alive) == 2, seed
        assert await _found(stores[3]) == await _found(stores[2], OP_SESSION) == sorted(alive), seed
        evicted = [key for outcome in outcomes if isinstance(outcome, tuple) for key in outcome]
        assert not set(evicted) & set(alive), seed
        assert len(evicted) == len(set(evicted)), seed
        if killed is None or outcomes[0] != "killed":
            assert sorted([*alive, *evicted]) == ["before", "k0", "k1", "k2", "k3"], seed


@stepped
async def test_revoking_all_sessions_meets_a_session_started_by_another_process() -> None:
    """It is ended, or it started after the revocation and is live and listed."""
    for seed in range(ORDERS):
        clock = FakeClock()
        (first, second, third), turns, _ = processes(3, clock)
        await first.create("before", entry_for(clock))
        calls = [first.create("meanwhile", entry_for(clock)), second.delete_by(USER)]
        created, ended = await turns.play(calls, random.Random(seed))
        assert created == ()
        alive = await live(third, "before", "meanwhile")
        assert set(alive) | set(ended) == {"before", "meanwhile"}  # type: ignore[call-overload]
        assert await _found(third) == alive
        assert "before" not in alive


@stepped
async def test_a_claim_is_granted_once_and_no_write_is_lost() -> None:
    for seed in range(ORDERS):
        clock = FakeClock()
        stores, turns, _ = processes(3, clock)
        claims = await turns.play([store.claim("name", clock.now() + MINUTE) for store in stores], random.Random(seed))
        assert sorted(map(bool, claims)) == [False, False, True]
        await stores[0].create("key", entry_for(clock))
        writes = [store.replace("key", entry_for(clock), version=1) for store in stores]
        outcomes = await turns.play(writes, random.Random(seed))
        assert sorted(map(str, outcomes)) == sorted(map(str, [2, SessionConflictError, SessionConflictError]))


class _Late(SteppedEngine):
    """Delays the write number `late` until its caller has given up; `arrive` then applies it."""

    late = 0
    made = 0
    arrive: Callable[[], object] | None = None

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        await self._travel(lambda: self._write(name, Versioned(value, "late"), version))
        return await super().put(name, value, version=version, seconds=seconds)

    async def delete(self, name: str, *, version: object) -> bool:
        await self._travel(lambda: self._write(name, None, version))
        return await super().delete(name, version=version)

    async def _travel(self, write: Callable[[], object]) -> None:
        type(self).made += 1
        if self.made == self.late:
            type(self).arrive = write
            await asyncio.Event().wait()


_WRITES = ("create", "replace", "touch", "rotate", "delete", "delete_by", "claim")


@stepped
@pytest.mark.parametrize("write", _WRITES)
@pytest.mark.parametrize("late", range(1, 12))
async def test_a_write_that_arrives_after_the_deadline_changes_nothing_that_was_read(write: str, late: int) -> None:
    """Any write of a step may be the late one. What another process has read in between stays the same."""
    clock = FakeClock()
    _Late.late = _Late.made = 0
    _Late.arrive = None
    (first, second), _, _ = processes(2, clock, _Late)
    await first.create("old", entry_for(clock))
    calls = {
        "create": lambda: first.create("new", entry_for(clock)),
        "replace": lambda: first.replace("old", entry_for(clock, b"late"), version=1),
        "touch": lambda: first.touch("old", clock.now() + 180 * MINUTE),
        "rotate": lambda: first.rotate("old", "new", entry_for(clock), version=1, successor_until=clock.now() + MINUTE),
        "delete": lambda: first.delete("old"),
        "delete_by": lambda: first.delete_by(USER),
        "claim": lambda: first.claim("name", clock.now() + MINUTE),
    }

    async def picture() -> list[object]:
        _Late.late = 0
        return [*[await second.load(key) for key in ("old", "new")], await _found(second), await second.claimed_until("name")]

    _Late.late, _Late.made = late, 0
    with suppress(TimeoutError, StoreUnavailableError), Step(until=monotonic() + 0.05):
        async with asyncio.timeout(0.05):
            await calls[write]()
    seen = await picture()
    if _Late.arrive is not None:
        _Late.arrive()
    assert await picture() == seen


class _LosesAnswers(SteppedEngine):
    """At random, a call is applied and its response lost, or it fails without effect."""

    chance = random.Random(0)

    async def put(self, name: str, value: bytes, *, version: object | None, seconds: int) -> bool:
        if self.chance.random() < 0.1:
            raise ConnectionError
        made = await super().put(name, value, version=version, seconds=seconds)
        if self.chance.random() < 0.1:
            raise ConnectionError
        return made

    async def delete(self, name: str, *, version: object) -> bool:
        made = await super().delete(name, version=version)
        if self.chance.random() < 0.1:
            raise ConnectionError
        return made

    async def get(self, names: Sequence[str]) -> list[Versioned | None]:
        if self.chance.random() < 0.05:
            raise ConnectionError
        return await super().get(names)


@stepped
async def test_lost_responses_neither_lose_nor_repeat_a_write() -> None:
    """An acknowledged write is there; a failed one is there completely or not at all."""
    for seed in range(ORDERS):
        _LosesAnswers.chance = random.Random(seed)
        clock = FakeClock()
        stores, turns, values = processes(3, clock, _LosesAnswers)
        (calm,), _, there = processes(1, clock)
        await calm.create("key", entry_for(clock, b"0"))
        values.update(there)

        async def increment(store: ConditionalStore, clock: FakeClock = clock) -> int:
            acknowledged = unknown = 0
            while acknowledged + unknown < 4:
                try:
                    stored = await store.load("key")
                    assert stored is not None
                    await store.replace("key", entry_for(clock, b"%d" % (int(stored.entry.data) + 1)), version=stored.version)
                except StoreUnavailableError as error:
                    unknown += not error.not_applied
                except SessionConflictError:
                    pass
                else:
                    acknowledged += 1
            return acknowledged

        outcomes = await turns.play([increment(store) for store in stores], random.Random(seed))
        acknowledged = sum(int(str(outcome)) for outcome in outcomes)
        there.clear()
        there.update(values)
        stored = await calm.load("key")
        assert stored is not None
        assert acknowledged <= int(stored.entry.data) == stored.version - 1 <= 12, seed


@stepped
async def test_lost_responses_leave_a_login_complete() -> None:
    for seed in range(ORDERS):
        _LosesAnswers.chance = random.Random(seed)
        clock = FakeClock()
        (first, second), turns, values = processes(2, clock, _LosesAnswers)
        (calm,), _, there = processes(1, clock)
        await calm.create("before", entry_for(clock, rank=1))
        await calm.create("anonymous", Entry(b"", clock.now() + 60 * MINUTE))
        values.update(there)
        until = clock.now() + MINUTE
        login = first.rotate("anonymous", "new", entry_for(clock, rank=2), version=1, successor_until=until, limit=1)
        outcome, _ = await turns.play([login, second.load("anonymous")], random.Random(seed))
        there.clear()
        there.update(values)
        alive = await live(calm, "before", "anonymous", "new")
        assert alive in [["before", "anonymous"], ["new"]], seed
        assert (outcome == ("before",)) <= (alive == ["new"]), seed
        assert await _found(calm) == ["new" if alive == ["new"] else "before"], seed
