"""The store contract, part five: claims, sweeping, scanning, opening and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

import pytest

from session_core.errors import ConfigurationError, SessionConflictError, SessionGoneError
from session_core.stores.base import SessionIndex, SessionStore
from session_core.testing.clock import FakeClock
from session_core.testing.contract_base import HOUR, ContractBase

__all__ = ("UpkeepContract",)

_STEPS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610)
"""After how many turns of the event loop a request is cancelled."""


class UpkeepContract(ContractBase):
    """claim, delete_expired, scan, ping, close, and requests that are cancelled."""

    async def test_a_name_is_claimed_once(self, store: SessionStore, clock: FakeClock) -> None:
        """The claim holds until its own expiry, whatever expiry later callers pass."""
        name, until = self.key("name"), clock.now() + HOUR
        assert await store.claimed_until(name) is None
        assert await store.claim(name, until) is True
        assert await store.claim(name, until + HOUR) is False
        assert await store.claimed_until(name) == until
        assert await store.claimed_until(self.key("other")) is None
        assert await store.claim(self.key("other"), until) is True

    async def test_a_claim_ends(self, store: SessionStore, clock: FakeClock) -> None:
        """After its expiry one caller gets the claim."""
        name = self.key("name")
        await store.claim(name, clock.now() + HOUR)
        clock.advance(seconds=3599.999)
        assert await store.claimed_until(name) is not None
        assert await store.claim(name, clock.now() + HOUR) is False
        clock.advance(seconds=0.001)
        assert await store.claimed_until(name) is None
        assert await store.claim(name, clock.now() + HOUR) is True
        assert await store.claim(name, clock.now() + HOUR) is False
        assert await store.claimed_until(name) == clock.now() + HOUR

    async def test_claims_and_sessions_are_separate(self, store: SessionStore, clock: FakeClock) -> None:
        """The same name may be a key, a user, an OP session and a claim."""
        name = self.key("name")
        await store.create(name, self.entry(clock, user=name, op_session=name))
        assert await store.claim(name, clock.now() + HOUR) is True
        assert await store.delete(name) == (name,)
        assert await store.claim(name, clock.now() + HOUR) is False

    async def test_delete_expired_removes_expired_records_only(self, store: SessionStore, clock: FakeClock) -> None:
        """Live sessions, remembered successors and live claims stay."""
        for name in ("a", "b"):
            await store.create(self.key(name), self.entry(clock, user="u", op_session="o"))
        await store.create(self.key("live"), self.entry(clock, hours=2, user="u", op_session="o"))
        await store.create(self.key("old"), self.entry(clock, hours=2))
        new, until = self.key("new", after=self.key("old")), clock.now() + 2 * HOUR
        await store.rotate(self.key("old"), new, self.entry(clock, hours=3), version=1, successor_until=until)
        await store.claim("short", clock.now() + HOUR)
        await store.claim("long", clock.now() + 2 * HOUR)
        clock.advance(hours=1)
        assert await store.delete_expired() == (3 if self.sweeps(store) else 0)
        assert await store.delete_expired() == 0
        assert await self.live(store, self.key("live"), new) == [self.key("live"), new]
        assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == [self.key("live")]
        assert await store.claim("long", clock.now() + HOUR) is False
        assert await store.delete(self.key("old")) == (new,)

    async def test_delete_expired_forgets_successors(self, store: SessionStore, clock: FakeClock) -> None:
        """Expired successors are removed; the session stays."""
        await store.create(self.key("old"), self.entry(clock))
        new, until = self.key("new", after=self.key("old")), clock.now() + HOUR
        await store.rotate(self.key("old"), new, self.entry(clock, hours=3), version=1, successor_until=until)
        clock.advance(hours=1)
        assert await store.delete_expired() == (1 if self.sweeps(store) else 0)
        assert await store.load(new) is not None

    async def test_delete_expired_works_in_batches(self, store: SessionStore, clock: FakeClock) -> None:
        """At most `limit` in one call; repeated calls remove all."""
        if not self.sweeps(store):
            pytest.skip("expired records leave by themselves, or cannot be listed")
        for number in range(7):
            await store.create(self.key(str(number)), self.entry(clock, user="u"))
        for number in range(3):
            await store.claim(str(number), clock.now() + HOUR)
        clock.advance(hours=1)
        removed = [await store.delete_expired(limit=4) for _ in range(4)]
        assert removed == [4, 4, 2, 0]

    async def test_several_sweepers_share_the_work(self, store: SessionStore, clock: FakeClock) -> None:
        """At the same time, beside a request that begins a session: each record is counted once, none too many goes."""
        for number in range(12):
            await store.create(self.key(str(number)), self.entry(clock, user="u"))
        clock.advance(hours=1)
        creating = asyncio.create_task(self._create_later(store, clock))
        removed = await asyncio.gather(*(store.delete_expired() for _ in range(3)))
        await creating
        removed.append(await store.delete_expired())
        assert sum(removed) == (12 if self.sweeps(store) else 0)
        assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == [self.key("new")]

    async def test_scan_yields_the_live_records(self, store: SessionStore, clock: FakeClock) -> None:
        """Each live record once, as `load` returns it."""
        self.needs_a_listable_store(store)
        for number in range(5):
            await store.create(self.key(str(number)), self.entry(clock, hours=1 + number))
        await store.delete(self.key("4"))
        clock.advance(hours=1)
        seen = [stored async for stored in store.scan()]
        assert sorted(stored.key for stored in seen) == sorted(self.key(str(number)) for number in (1, 2, 3))
        assert [await store.load(stored.key) for stored in seen] == seen

    async def test_scan_tolerates_changes(self, store: SessionStore, clock: FakeClock) -> None:
        """Sessions that end while an operator reads the list do no harm."""
        self.needs_a_listable_store(store)
        for number in range(5):
            await store.create(self.key(str(number)), self.entry(clock))
        seen = 0
        async for stored in store.scan():
            seen += 1
            await store.delete(stored.key)
        assert seen == 5
        assert [stored async for stored in store.scan()] == []

    async def test_sessions_are_listed_or_it_is_refused(self, store: SessionStore, clock: FakeClock) -> None:
        """A store that cannot list raises an error instead of yielding nothing."""
        await store.create(self.key("a"), self.entry(clock))
        if store.capabilities.listable:
            assert [stored.key async for stored in store.scan()] == [self.key("a")]
            return
        with pytest.raises(ConfigurationError):
            [stored async for stored in store.scan()]

    def needs_a_listable_store(self, store: SessionStore) -> None:
        """Skip what an operator cannot see."""
        if not store.capabilities.listable:
            pytest.skip("the store says that it cannot list its sessions")

    async def test_ping_answers(self, store: SessionStore) -> None:
        """`ping` leaves no visible record."""
        await store.ping()
        if store.capabilities.listable:
            assert [stored async for stored in store.scan()] == []

    async def test_close_is_idempotent(self, store: SessionStore) -> None:
        """Closing twice is no error."""
        await store.close()
        await store.close()

    async def test_durable_sessions_survive_reopening(self, store: SessionStore, clock: FakeClock) -> None:
        """A durable store has all records after a restart."""
        await store.create(self.key("old"), self.entry(clock, user="u"))
        new = self.key("new", after=self.key("old"))
        entry = self.entry(clock, b"kept", user="u")
        await store.rotate(self.key("old"), new, entry, version=1, successor_until=clock.now() + HOUR)
        await store.claim("name", clock.now() + HOUR)
        if not store.capabilities.durable:
            pytest.skip("the store says that it is not durable")
        await store.close()
        await store.open()
        stored = await store.load(new)
        assert stored is not None
        assert stored.entry == entry
        assert await store.claim("name", clock.now() + HOUR) is False
        assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == [new]
        assert await store.delete(self.key("old")) == (new,)

    async def test_a_cancelled_request_harms_no_other_request(self, store: SessionStore, clock: FakeClock) -> None:
        """Clients disconnect at any time: the call took effect or not, and the store keeps answering."""
        keys = [self.key("0")]
        entry, until = self.entry(clock, user="u"), clock.now() + HOUR
        limit = 5 if store.capabilities.atomic else 0
        await store.create(keys[0], entry)
        for steps in _STEPS:
            key = await self._first_live(store, keys)
            await self._cancel_after(steps, store.load(key))
            await self._cancel_after(steps, store.replace(key, entry, version=0))
            keys.append(self.key(str(steps), after=key))
            await self._cancel_after(steps, store.rotate(key, keys[-1], entry, version=1, successor_until=until, limit=limit))
        async with asyncio.timeout(10):
            await asyncio.gather(*(store.load(keys[0]) for _ in range(30)))
            assert len(await store.delete_by(SessionIndex(user="u"))) == 1
            assert await self.live(store, *keys) == []

    async def _first_live(self, store: SessionStore, keys: list[str]) -> str:
        """Read the first key first: a rotation may still take effect after its caller is gone."""
        async with asyncio.timeout(10):
            for key in keys:
                if await store.load(key) is not None:
                    return key
        pytest.fail("the session is under none of its keys")

    async def _create_later(self, store: SessionStore, clock: FakeClock) -> None:
        await store.create(self.key("new"), self.entry(clock, user="u"))

    async def _cancel_after(self, steps: int, call: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(call)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError, SessionConflictError, SessionGoneError):
            await task
