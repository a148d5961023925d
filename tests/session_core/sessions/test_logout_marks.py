"""Which logins a logout mark ends, by the store's order and the provider's clock; slightly wrong rules are detected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

import msgspec
import pytest

from session_core.clock import TOLERATED_SKEW_MS
from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.oidc.login.transaction import LIFETIME_SECONDS
from session_core.sessions.logout_marks import CERTAIN_MS, EndMark, _key, leave_mark, was_ended_since
from session_core.sessions.notes import encode_note, read_note
from session_core.sessions.store_order import Moment, current_moment, next_moment
from session_core.stores.base import Entry, StoredSession
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.support.sessions import ALICE

NOON = 4_102_444_800
COUNT = 7

Rule = Callable[[EndMark, int | None, Moment], bool]
"""`rule(mark, auth_time, begun)` returns whether the mark ends the login."""


class Case(NamedTuple):
    """Seconds after noon. `logout`: when the provider ended the session, and when its token arrived."""

    name: str
    started: float
    proved: float | None
    logout: tuple[float, float]
    is_ended: bool
    op_says: bool = True

    def decided_by(self, rule: Rule) -> bool:
        signed, arrived = self.logout
        mark = EndMark().after(Moment(COUNT, 1), int(NOON + signed) if self.op_says else None)
        return rule(mark, None if self.proved is None else int(NOON + self.proved), Moment(COUNT, int(self.started > arrived)))


CASES = [
    Case("begun before", 0, None, (10, 10.2), is_ended=True),
    Case("begun before, authenticated long before", 0, -3600, (10, 10.2), is_ended=True),
    Case("begun before, both within one second", 9.8, 10.1, (10.8, 10.9), is_ended=True),
    Case("begun before, the token arrives minutes later", 0, 5, (10, 200), is_ended=True),
    Case("begun after", 11, None, (10, 10.2), is_ended=False),
    Case("begun after, by single sign-on", 11, -3600, (10, 10.2), is_ended=False),
    Case("begun a moment after", 10.3, 10.4, (10, 10.2), is_ended=False),
    Case("proved anew, begun before a late token arrived", 50, 55, (10, 100), is_ended=False),
    Case("not proved anew, begun before a late token arrived", 50, -3600, (10, 100), is_ended=True),
    Case("no logout token, begun before", 0, 9, (10, 10.2), is_ended=True, op_says=False),
    Case("no logout token, proved anew, begun before", 0, 5, (1, 10.2), is_ended=True, op_says=False),
    Case("no logout token, begun after", 11, None, (10, 10.2), is_ended=False, op_says=False),
]


def the_rule(mark: EndMark, auth_time: int | None, begun: Moment) -> bool:
    return mark.ends(msgspec.structs.replace(ALICE, auth_time=auth_time), begun)


def by_order_only(mark: EndMark, _: int | None, begun: Moment) -> bool:
    return begun.is_before(mark.signed or mark.unsigned or begun)


def by_auth_time_only(mark: EndMark, auth_time: int | None, begun: Moment) -> bool:
    return the_rule(mark, auth_time, begun) if mark.signed is None or auth_time is None else auth_time <= mark.iat


def with_equal_auth_time_accepted(mark: EndMark, auth_time: int | None, begun: Moment) -> bool:
    return the_rule(msgspec.structs.replace(mark, iat=mark.iat - 1), auth_time, begun)


def with_equal_order_counted_as_before(mark: EndMark, auth_time: int | None, begun: Moment) -> bool:
    return the_rule(mark, auth_time, Moment(begun.count, begun.number - 1))


def with_any_auth_time_accepted(mark: EndMark, auth_time: int | None, begun: Moment) -> bool:
    return the_rule(mark, auth_time, begun) and (auth_time is None or auth_time < NOON)


def wrongly_decided(rule: Rule) -> set[str]:
    return {case.name for case in CASES if case.decided_by(rule) is not case.is_ended}


def test_each_login_is_decided_correctly() -> None:
    assert wrongly_decided(the_rule) == set()


@pytest.mark.parametrize(
    ("rule", "found_by"),
    [
        (by_order_only, "proved anew, begun before a late token arrived"),
        (by_auth_time_only, "begun after, by single sign-on"),
        (with_equal_auth_time_accepted, "begun before, both within one second"),
        (with_equal_order_counted_as_before, "begun after"),
        (with_any_auth_time_accepted, "no logout token, proved anew, begun before"),
    ],
)
def test_slightly_wrong_rules_are_detected(rule: Rule, found_by: str) -> None:
    assert found_by in wrongly_decided(rule)


def test_marks_are_merged() -> None:
    begun, proved = Moment(COUNT, 3), msgspec.structs.replace(ALICE, auth_time=NOON + 1)
    mark = EndMark().after(Moment(COUNT, 4), None).after(Moment(COUNT, 2), NOON)
    assert mark.ends(proved, begun), "a frame ended it; that an older token does not takes nothing back"
    mark = EndMark().after(Moment(COUNT, 5), NOON).after(Moment(COUNT, 4), NOON - 60)
    assert mark == EndMark(signed=Moment(COUNT, 5), iat=NOON), "tokens that overtook each other"
    assert not mark.ends(proved, begun)
    assert mark.ends(ALICE, begun)


def test_an_undecidable_order_is_refused() -> None:
    mark = EndMark().after(Moment(COUNT, 9), None).after(Moment(COUNT + 1, 1), None)
    assert mark.ends(ALICE, Moment(COUNT, 10))
    assert mark.ends(ALICE, Moment())
    assert not mark.ends(ALICE, Moment(COUNT + 1, 1))


@pytest.mark.anyio
async def test_an_unreadable_mark_refuses_and_is_replaced() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await leave_mark(store, ALICE.user_key, clock.now())
    (key,) = [stored.key async for stored in store.scan() if stored.key[-3:] == stored.key[:3]]
    begun = await current_moment(store)
    await store.replace(key, Entry(encode_note("of another version"), clock.now() + 60_000), version=1)
    assert await was_ended_since(store, ALICE, begun)
    await leave_mark(store, ALICE.user_key, clock.now())
    assert await was_ended_since(store, ALICE, begun)
    assert not await was_ended_since(store, ALICE, await current_moment(store))


def test_the_stored_form_of_a_mark_is_that_of_earlier_versions() -> None:
    mark, stored = EndMark(Moment(7, 1), Moment(7, 2), 5), bytes.fromhex("c16e6f7465009392070192070205")
    assert encode_note(mark) == stored
    assert read_note(stored, EndMark) == mark


class CrossedStore(MemoryStore):
    """Runs a step after the next read of the mark of `ALICE`, before it is written."""

    step: Callable[[], Awaitable[object]] | None = None

    async def load(self, key: str) -> StoredSession | None:
        stored = await super().load(key)
        if key == _key(ALICE.user_key) and (step := self.step) is not None:
            self.step = None
            await step()
        return stored

    async def mark(self) -> EndMark:
        stored = await self.load(_key(ALICE.user_key))
        assert stored is not None
        mark = read_note(stored.entry.data, EndMark)
        assert mark is not None
        return mark


@pytest.mark.anyio
@pytest.mark.parametrize("is_marked", [False, True])
async def test_of_two_marks_left_at_once_both_count(is_marked: bool) -> None:
    store = CrossedStore()
    if is_marked:
        await leave_mark(store, ALICE.user_key, NOON * 1000, iat=1)
    store.step = lambda: leave_mark(store, ALICE.user_key, NOON * 1000, iat=5)
    await leave_mark(store, ALICE.user_key, NOON * 1000, iat=3)
    assert (await store.mark()).iat == 5


@pytest.mark.anyio
async def test_a_mark_that_ends_while_another_is_left_is_replaced() -> None:
    store = CrossedStore()
    await leave_mark(store, ALICE.user_key, NOON * 1000, iat=5)
    store.step = lambda: store.delete(_key(ALICE.user_key))
    await leave_mark(store, ALICE.user_key, NOON * 1000, iat=3)
    assert (await store.mark()).iat == 3


@pytest.mark.anyio
@pytest.mark.usefixtures("virtual_time")
async def test_a_mark_that_always_loses_is_an_outage_after_a_hundred_attempts_that_wait() -> None:
    class Contended(MemoryStore):
        attempts = 0

        async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
            if key != _key(ALICE.user_key):
                return await super().create(key, entry, limit=limit)
            self.attempts += 1
            raise SessionConflictError

    store, began = Contended(), monotonic()
    with pytest.raises(StoreUnavailableError, match="kept writing the same mark"):
        await leave_mark(store, ALICE.user_key, NOON * 1000)
    assert store.attempts == 100
    assert monotonic() - began > 1


@pytest.mark.anyio
async def test_a_mark_outlives_every_login_that_it_could_end() -> None:
    """Also where a node whose clock is behind leaves the second one."""
    assert CERTAIN_MS == LIFETIME_SECONDS * 1000
    clock = FakeClock()
    store, now = MemoryStore(clock=clock), clock.now()
    for moment, last in ((now, now), (now - TOLERATED_SKEW_MS, now), (now + 1000, now + 1000)):
        await leave_mark(store, ALICE.user_key, moment)
        stored = await store.load(_key(ALICE.user_key))
        assert stored is not None
        assert stored.entry.expires_at == last + CERTAIN_MS + 2 * TOLERATED_SKEW_MS + 60_000


@pytest.mark.anyio
async def test_starting_a_login_writes_nothing() -> None:
    store = MemoryStore()
    assert await current_moment(store) == Moment()
    assert [stored async for stored in store.scan()] == []


@pytest.mark.anyio
@pytest.mark.parametrize("clock_is_behind", [False, True])
async def test_a_store_that_lost_its_last_writes_repeats_no_number(clock_is_behind: bool) -> None:
    """A failover reverts a logout that a login has already seen; the next logout still ends that login."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await next_moment(store, clock.now())
    (before,) = [stored async for stored in store.scan()]
    clock.advance(minutes=1)
    await next_moment(store, clock.now())
    begun = await current_moment(store)
    await store.delete(before.key)
    await store.create(before.key, before.entry)
    clock.advance(minutes=1)
    await leave_mark(store, ALICE.user_key, clock.now() - clock_is_behind * TOLERATED_SKEW_MS)
    # With differing clocks the order is unknown, and a lost order is not guessed.
    assert await was_ended_since(store, ALICE, begun) is not clock_is_behind


@pytest.mark.anyio
async def test_clocks_decide_nothing_while_the_store_keeps_its_writes() -> None:
    store, clock = MemoryStore(), FakeClock()
    for ahead, behind in ((0, TOLERATED_SKEW_MS), (TOLERATED_SKEW_MS, 0)):
        await next_moment(store, clock.now() + ahead)
        begun = await current_moment(store)
        await leave_mark(store, ALICE.user_key, clock.now() - behind)
        assert await was_ended_since(store, ALICE, begun)
        assert not await was_ended_since(store, ALICE, await current_moment(store))


class Damaged(MemoryStore):
    """Some stores neither show nor overwrite an unreadable entry: it exists without a version until it is deleted."""

    key = ""

    async def load(self, key: str) -> StoredSession | None:
        return StoredSession(key, 0, Entry(b"", 0)) if key == self.key else await super().load(key)

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        if key == self.key:
            raise SessionConflictError
        return await super().create(key, entry, limit=limit)

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        if key == self.key:
            raise SessionGoneError
        return await super().replace(key, entry, version=version)

    async def delete(self, key: str) -> tuple[str, ...]:
        if key == self.key:
            self.key = ""
        return await super().delete(key)


@pytest.mark.anyio
async def test_a_damaged_entry_is_replaced() -> None:
    store, clock = Damaged(), FakeClock()
    await leave_mark(store, ALICE.user_key, clock.now())
    keys = [stored.key async for stored in store.scan()]
    assert len(keys) == 2
    for key in keys:
        begun = await current_moment(store)
        store.key = key
        await leave_mark(store, ALICE.user_key, clock.now())
        assert await was_ended_since(store, ALICE, begun)
        await leave_mark(store, ALICE.user_key, clock.now())
        assert not await was_ended_since(store, ALICE, await current_moment(store))


class WritesInBetween(MemoryStore):
    """Other processes write between each read and write, as often as configured."""

    times = 0

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        if self.times:
            self.times -= 1
            await super().replace(key, entry, version=version)
        return await super().replace(key, entry, version=version)


@pytest.mark.anyio
async def test_a_counter_raised_meanwhile_is_after_every_earlier_login() -> None:
    clock = FakeClock()
    store = WritesInBetween(clock=clock)
    await next_moment(store, clock.now())
    begun = await current_moment(store)
    store.times = 1
    moment = await next_moment(store, clock.now())
    assert begun.is_before(moment)
    assert not (await current_moment(store)).is_before(moment)


class LosesEveryWrite(MemoryStore):
    """No read finds the write before it."""

    async def load(self, key: str) -> None:
        del key

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        del key, entry, limit
        raise SessionConflictError

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        del key, entry, version
        raise SessionGoneError


@pytest.mark.anyio
async def test_a_store_that_loses_its_counter_raises_an_error() -> None:
    with pytest.raises(StoreUnavailableError):
        await leave_mark(LosesEveryWrite(), ALICE.user_key, 0)


@pytest.mark.anyio
async def test_concurrent_logouts_are_all_stored() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    users = [msgspec.structs.replace(ALICE, subject=f"user {number}", sid=None) for number in range(5)]
    begun = await current_moment(store)
    await asyncio.gather(*(leave_mark(store, user.user_key, clock.now()) for user in users for _ in range(10)))
    assert all([await was_ended_since(store, user, begun) for user in users])
    assert not any([await was_ended_since(store, user, await current_moment(store)) for user in users])
