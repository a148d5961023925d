"""The clock in the store: each moment comes after those returned before, also after a damage or a loss."""

from __future__ import annotations

from typing import Any

import pytest

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.sessions.notes import encode_note
from session_core.sessions.store_order import _KEY, Moment, current_moment, next_moment
from session_core.stores.base import Entry
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock

pytestmark = pytest.mark.anyio

MONTH = 30 * 24 * 60 * 60 * 1000


def test_moments_of_one_count_are_ordered_and_those_of_two_are_not() -> None:
    assert Moment(1, 1).is_before(Moment(1, 2))
    assert not Moment(1, 1).is_before(Moment(1, 1))
    assert not Moment(1, 2).is_before(Moment(1, 1))
    for number in (0, 1, 2):
        assert Moment(1, 1).is_before(Moment(2, number))
        assert Moment(2, 1).is_before(Moment(1, number))
    assert Moment(2**61, 1).is_before(Moment(int("2") ** 61, 2))
    assert not Moment(2**61, 2).is_before(Moment(int("2") ** 61, 1))
    assert Moment() == Moment(0, 0)
    assert encode_note(Moment(1, 2)).endswith(b"\x92\x01\x02")
    with pytest.raises(AttributeError):
        Moment().count = 1  # type: ignore[misc]


async def test_a_moment_is_the_time_or_the_next_number() -> None:
    clock = FakeClock()
    store, now = MemoryStore(clock=clock), clock.now()
    assert await current_moment(store) == Moment()
    first = await next_moment(store, now)
    assert (first.number, 0 < first.count <= 2**62) == (now, True)
    for given, number in ((now, now + 1), (now - 5, now + 2), (now + 2, now + 3), (now + 9, now + 9)):
        moment = await next_moment(store, given)
        assert moment == await current_moment(store) == Moment(first.count, number)


async def test_the_number_is_kept_for_a_month_after_its_last_use_and_never_shorter() -> None:
    clock = FakeClock()
    store, now = MemoryStore(clock=clock), clock.now()
    for given, kept in ((now, now), (now + 1000, now + 1000), (now - 1000, now + 1000)):
        await next_moment(store, given)
        stored = await store.load(_KEY)
        assert stored is not None
        assert stored.entry.expires_at == kept + MONTH


async def test_a_damaged_number_begins_another_count() -> None:
    clock = FakeClock()
    store: Any = MemoryStore(clock=clock)
    await store.create(_KEY, Entry(encode_note("damaged"), clock.now() + 1000))
    assert await current_moment(store) == Moment()
    moment = await next_moment(store, clock.now())
    assert moment == await current_moment(store)
    assert moment.count > 0


@pytest.mark.parametrize("time", [0, 1])
@pytest.mark.parametrize(("error", "number"), [(SessionConflictError, 1), (SessionGoneError, None)])
async def test_a_number_that_another_process_raises_is_raised_far_enough(
    error: type[Exception], number: int | None, time: int
) -> None:
    clock = FakeClock()
    store: Any = MemoryStore(clock=clock)
    known = await next_moment(store, clock.now() + time)
    tries = []

    async def replace(*_: object, **__: object) -> None:
        tries.append(1)
        raise error

    store.replace = replace
    if number is not None:
        assert await next_moment(store, clock.now() + 50) == Moment(known.count, known.number + number)
        assert len(tries) == 1
    else:
        with pytest.raises(StoreUnavailableError):
            await next_moment(store, clock.now())
        assert len(tries) == 10
