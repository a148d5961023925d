"""The store contract, part four: concurrent methods, many times and in both orders."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.base import SessionIndex, SessionStore
from session_core.testing.clock import FakeClock
from session_core.testing.contract_base import HOUR, ContractBase, outcome

__all__ = ("RacesContract",)


class RacesContract(ContractBase):
    """Holds whichever of two calls reaches the store first."""

    async def meet(self, number: int, *calls: Coroutine[object, object, object]) -> list[object]:
        """Run the calls at once, in another order each time; return the outcomes in the order given."""
        ordered = list(enumerate(calls))
        if number % 2:
            ordered.reverse()
        results = await asyncio.gather(*(outcome(call) for _, call in ordered))
        return [result for _, result in sorted(zip((place for place, _ in ordered), results, strict=True), key=lambda p: p[0])]

    async def test_of_many_creates_of_one_key_one_wins(self, store: SessionStore, clock: FakeClock) -> None:
        """The others get a conflict, and the data is the winner's."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds):
            key = self.key(f"a{number}")
            calls = [store.create(key, self.entry(clock, str(i).encode())) for i in range(5)]
            results = await self.meet(number, *calls)
            assert sorted(map(str, results)) == sorted(map(str, [(), *[SessionConflictError] * 4]))
            stored = await store.load(key)
            assert stored is not None
            assert stored.entry.data == str(results.index(())).encode()

    async def test_no_acknowledged_write_is_lost(self, store: SessionStore, clock: FakeClock) -> None:
        """Concurrent increments by load and compare-and-swap add up."""
        self.needs_an_atomic_store(store)
        key = self.key("counter")
        await store.create(key, self.entry(clock, b"0"))

        async def increment() -> None:
            while True:
                stored = await store.load(key)
                assert stored is not None
                new = self.entry(clock, b"%d" % (int(stored.entry.data) + 1))
                if await outcome(store.replace(key, new, version=stored.version)) is not SessionConflictError:
                    return

        async def client() -> None:
            for _ in range(5):
                await increment()

        await asyncio.gather(*(client() for _ in range(6)))
        stored = await store.load(key)
        assert stored is not None
        assert (stored.entry.data, stored.version) == (b"30", 31)

    @pytest.mark.parametrize("end", ["delete", "delete_by"])
    @pytest.mark.parametrize("write", ["replace", "touch", "rotate"])
    async def test_the_end_of_a_session_wins(self, store: SessionStore, clock: FakeClock, end: str, write: str) -> None:
        """Whichever comes first, a write in flight restores no ended session, under any key."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds):
            old = self.key(f"old{number}")
            new = self.key(f"new{number}", after=old)
            entry = self.entry(clock, user="u", op_session="o")
            await store.create(old, entry)
            index = SessionIndex(user="u") if number % 4 < 2 else SessionIndex(op_session="o")
            call: Coroutine[object, object, object]
            if write == "replace":
                call = store.replace(old, entry, version=1)
            elif write == "touch":
                call = store.touch(old, clock.now() + 2 * HOUR)
            else:
                call = store.rotate(old, new, entry, version=1, successor_until=clock.now() + HOUR)
            ended, written = await self.meet(number, store.delete(old) if end == "delete" else store.delete_by(index), call)
            assert ended == ((new,) if write == "rotate" and written == () else (old,))
            assert await self.live(store, old, new) == []
            assert list(await store.find(SessionIndex(user="u"))) == []

    async def test_a_session_is_ended_by_one_call_only(self, store: SessionStore, clock: FakeClock) -> None:
        """Of several calls that end the same sessions, each end is reported once."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds):
            keys = [self.key(f"{number}-{i}") for i in range(3)]
            for key in keys:
                await store.create(key, self.entry(clock, user="u"))
            index = SessionIndex(user="u")
            results = await self.meet(number, store.delete(keys[0]), store.delete_by(index), store.delete_by(index))
            assert sorted(key for ended in results if isinstance(ended, tuple) for key in ended) == sorted(keys)

    async def test_a_touch_never_reverts_a_concurrent_write(self, store: SessionStore, clock: FakeClock) -> None:
        """A touch concurrent with a write changes neither data nor version, and is not lost."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds):
            key = self.key(f"a{number}")
            await store.create(key, self.entry(clock, b"1"))
            entry = self.entry(clock, b"2")
            await self.meet(number, store.touch(key, clock.now() + 2 * HOUR), store.replace(key, entry, version=1))
            stored = await store.load(key)
            assert stored is not None
            assert (stored.version, stored.entry.data) == (2, b"2")
            await self.meet(number, *(store.touch(key, clock.now() + hours * HOUR) for hours in (3, 5, 4)))
            stored = await store.load(key)
            assert stored is not None
            assert stored.entry.expires_at == clock.now() + 5 * HOUR

    async def test_of_a_rotation_and_a_write_one_wins(self, store: SessionStore, clock: FakeClock) -> None:
        """A rotation keeps every acknowledged write."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds):
            old = self.key(f"old{number}")
            new = self.key(f"new{number}", after=old)
            await store.create(old, self.entry(clock, b"1"))
            until = clock.now() + HOUR
            rotated, replaced = await self.meet(
                number,
                store.rotate(old, new, self.entry(clock, b"rotated"), version=1, successor_until=until),
                store.replace(old, self.entry(clock, b"replaced"), version=1),
            )
            assert (rotated, replaced) in [((), SessionGoneError), (SessionConflictError, 2)]
            assert await self.live(store, old, new) == [new if rotated == () else old]

    async def test_of_several_rotations_one_wins(self, store: SessionStore, clock: FakeClock) -> None:
        """One session never becomes two."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds):
            old = self.key(f"old{number}")
            news = [self.key(f"new{number}-{i}", after=old) for i in range(3)]
            await store.create(old, self.entry(clock, user="u"))
            entry, until = self.entry(clock, user="u"), clock.now() + HOUR
            calls = [store.rotate(old, new, entry, version=1, successor_until=until) for new in news]
            results = await self.meet(number, *calls)
            assert results.count(()) == 1
            assert results.count(SessionGoneError) == len(news) - 1
            assert await self.live(store, old, *news) == [news[results.index(())]]
            assert await store.delete_by(SessionIndex(user="u")) == (news[results.index(())],)

    async def test_exactly_one_key_is_live_at_every_instant(self, store: SessionStore, clock: FakeClock) -> None:
        """A reader finds a session while it is rotated, under one key."""
        self.needs_an_atomic_store(store)
        done = asyncio.Event()
        keys = [self.key("0")]
        await store.create(keys[0], self.entry(clock))

        async def rotate() -> None:
            for number in range(1, self.rounds):
                keys.append(self.key(str(number), after=keys[-1]))
                await store.rotate(keys[-2], keys[-1], self.entry(clock), version=1, successor_until=clock.now() + HOUR)
                await asyncio.sleep(0)
            done.set()

        async def look() -> None:
            while not done.is_set():
                old, new = keys[-2:] if len(keys) > 1 else (keys[-1], keys[-1])
                # Life only moves forward, so two looks one after another tell as much as one at both.
                if await store.load(old) is None and await store.load(new) is None:
                    assert keys[-1] != new, "neither of two keys was live"
                old, new = keys[-2:] if len(keys) > 1 else (keys[-1], self.key("unknown"))
                if await store.load(new) is not None:
                    assert await store.load(old) is None, "both keys were live"
                await asyncio.sleep(0)

        await asyncio.gather(rotate(), look(), look())

    async def test_a_logout_ends_a_session_under_continuous_rotation(self, store: SessionStore, clock: FakeClock) -> None:
        """Deleting the first key ends the session under its last key."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds // 4):
            keys = [self.key(f"{number}-0")]
            await store.create(keys[0], self.entry(clock))

            async def rotate(number: int = number, keys: list[str] = keys) -> None:
                for place in range(1, 50):
                    new = self.key(f"{number}-{place}", after=keys[-1])
                    keys.append(new)
                    call = store.rotate(keys[-2], new, self.entry(clock), version=1, successor_until=clock.now() + HOUR)
                    if await outcome(call) is SessionGoneError:
                        return

            async def log_out(keys: list[str] = keys) -> None:
                while len(keys) < 4:  # noqa: ASYNC110 - waits for the other's progress, not for time
                    await asyncio.sleep(0)
                assert len(await store.delete(keys[0])) == 1

            await asyncio.gather(rotate(), log_out())
            assert await self.live(store, *keys) == []

    @pytest.mark.parametrize("turn", [0, 1])
    async def test_simultaneous_logins_never_exceed_the_limit(self, store: SessionStore, clock: FakeClock, turn: int) -> None:
        """Twenty logins at a limit of three leave three, and every other one is reported as ended, once."""
        self.needs_an_atomic_store(store)
        keys: list[str] = []
        calls: list[Coroutine[object, object, object]] = []
        for rank in range(20):
            entry = self.entry(clock, user="u", rank=rank)
            anonymous = self.key(f"anonymous{rank}")
            keys.append(self.key(str(rank), after=anonymous))
            if rank < 10:
                await store.create(anonymous, self.entry(clock))
                until = clock.now() + HOUR
                calls.append(store.rotate(anonymous, keys[-1], entry, version=1, successor_until=until, limit=3))
            else:
                calls.append(store.create(keys[-1], entry, limit=3))
        results = await self.meet(turn, *calls)
        alive = await self.live(store, *keys)
        assert len(alive) == 3
        assert sorted(stored.key for stored in await store.find(SessionIndex(user="u"))) == sorted(alive)
        evicted = [key for result in results if isinstance(result, tuple) for key in result]
        assert sorted([*evicted, *alive]) == sorted(keys)

    async def test_of_many_claims_one_wins(self, store: SessionStore, clock: FakeClock) -> None:
        """One caller gets the claim, also when the previous claim has just expired."""
        self.needs_an_atomic_store(store)
        for number in range(self.rounds):
            results = await self.meet(number, *(store.claim("name", clock.now() + HOUR) for _ in range(8)))
            assert sorted(map(bool, results)) == [False] * 7 + [True]
            clock.advance(hours=1)
