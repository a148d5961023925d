"""How long the marks of revoked sessions last, and what they cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from session_core import Identity, StoreUnavailableError
from session_core.errors import SessionConflictError
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.timeouts import Timeouts
from session_core.stores.base import Entry
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.attack("73")]

ALICE, BOB = (Identity(issuer="https://op.example", subject=name) for name in ("alice", "bob"))
HOURS, DAYS = 3_600_000, 86_400_000


class CountingStore(MemoryStore):
    """Counts calls, and how many claims run at the same time."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.calls = self.running = self.most = 0
        self.down = self.overtaken = False

    async def claim(self, name: str, expires_at: int) -> bool:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.down:
            raise StoreUnavailableError
        return await super().claim(name, expires_at)

    async def create(self, key: str, entry: Entry) -> int:
        self.calls += 1
        if self.down:
            raise StoreUnavailableError
        if self.overtaken:
            await super().create(key, entry)
            raise SessionConflictError
        return await super().create(key, entry)


class Marks(RevocationMarks):
    """With its store and its clock."""

    def __init__(self, **timeouts: Any) -> None:
        self.clock = FakeClock()
        self.store = CountingStore(self.clock)
        super().__init__(self.store, Timeouts(**timeouts), self.clock)

    async def lasts(self, key: str, milliseconds: int) -> bool:
        """Whether the mark of a session lasts so long from now on, and no longer."""
        self.clock.advance(seconds=(milliseconds - 1) / 1000)
        before = await self.any_of([key])
        self.clock.advance(seconds=0.001)
        return before and not await self.any_of([key])


def keys_of(number: int) -> list[str]:
    return [f"{each:043d}abc" for each in range(number)]


class TestHowLong:
    async def test_as_long_as_a_session_could_live(self) -> None:
        marks = Marks(absolute=7200)
        assert await marks.leave(["a"])
        assert await marks.lasts("a", 2 * HOURS)

    @pytest.mark.parametrize(("absolute", "hours"), [(3600, 2), (10_800, 3)])
    async def test_as_long_as_the_longest_that_a_login_may_choose(self, absolute: int, hours: int) -> None:
        marks = Marks(absolute=7200)
        marks.cover(Timeouts(idle=60, absolute=absolute))
        marks.cover(Timeouts(idle=60, absolute=60))
        await marks.leave(["a"])
        assert await marks.lasts("a", hours * HOURS)

    @pytest.mark.parametrize(("until", "expected"), [(HOURS, 2 * HOURS), (3 * HOURS, 3 * HOURS), (31 * DAYS, 30 * DAYS)])
    async def test_as_long_as_these_sessions_live_but_at_most_thirty_days(self, until: int, expected: int) -> None:
        marks = Marks(absolute=7200)
        await marks.leave(["a"], until=marks.clock.now() + until)
        assert await marks.lasts("a", expected)

    async def test_the_note_about_many_lasts_as_long(self) -> None:
        marks = Marks(absolute=7200)
        await marks.leave(keys_of(1001), until=marks.clock.now() + 3 * HOURS)
        await marks.leave(keys_of(1001))
        assert await marks.lasts("another", 3 * HOURS)


class TestHowMany:
    @pytest.mark.parametrize(
        ("before", "number", "marked"),
        [(None, 1000, True), (None, 1001, False), (999, 1, True), (1000, 1, False), (600, 401, False)],
    )
    async def test_more_than_a_thousand_of_one_revocation_are_one_note(
        self, before: int | None, number: int, marked: bool
    ) -> None:
        marks = Marks()
        keys = keys_of(number)
        assert await marks.leave(keys, **({} if before is None else {"before": before}))
        assert marks.store.calls == (number if marked else 1)
        assert marks.store.most == (min(number, 100) if marked else 0)
        for key in keys:
            assert await marks.any_of([key])
        assert await marks.any_of(["another"]) is not marked

    async def test_one_marked_session_among_several_is_enough(self) -> None:
        marks = Marks()
        await marks.leave(["a"])
        assert await marks.any_of(["b", "a", "c"])
        assert not await marks.any_of(["b", "c"])

    async def test_a_browser_without_a_session_is_not_affected(self) -> None:
        marks = Marks()
        await marks.leave(keys_of(1001))
        assert not await marks.any_of([])


class TestUsers:
    async def test_without_native_clients_nothing_is_noted(self) -> None:
        marks = Marks()
        await marks.leave(["a"], user=ALICE)
        assert await marks.last_of(ALICE) is None

    async def test_the_time_of_the_last_revocation_is_known_for_thirty_days(self) -> None:
        marks = Marks()
        marks.include_users()
        await marks.leave(["a"], user=ALICE)
        marks.clock.advance(days=1)
        now = marks.clock.now()
        await marks.leave(["b"], user=ALICE, until=now + HOURS)
        await marks.leave(["c"])
        assert await marks.last_of(ALICE) == now
        assert await marks.last_of(BOB) is None
        marks.clock.advance(days=30, seconds=-0.001)
        assert await marks.last_of(ALICE) == now
        marks.clock.advance(seconds=0.001)
        assert await marks.last_of(ALICE) is None

    async def test_also_of_many_sessions(self) -> None:
        marks = Marks()
        marks.include_users()
        await marks.leave(keys_of(1001), user=ALICE)
        assert await marks.last_of(ALICE) == marks.clock.now()


@pytest.mark.parametrize("number", [1, 1001])
async def test_an_outage_is_reported(number: int) -> None:
    marks = Marks()
    marks.store.down = True
    assert not await marks.leave(keys_of(number))
    marks.store.down = False
    assert not await marks.any_of(["a"])
    assert await marks.leave(keys_of(number))


async def test_a_note_that_another_process_has_just_written_is_enough() -> None:
    marks = Marks()
    marks.store.overtaken = True
    assert await marks.leave(keys_of(1001))
    assert await marks.any_of(["a"])
