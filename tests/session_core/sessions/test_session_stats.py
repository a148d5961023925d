"""Session statistics: exact for small numbers, approximate for large ones, in constant memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from session_core import Identity, Timeouts
from session_core.sessions.stats import StatsCounter
from session_core.stores.base import Entry
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, BOB, client_of, make_app, plugin_in

MINUTE = 60_000


def test_states_issuers_and_last_use_are_counted_separately() -> None:
    other = Identity(issuer="https://other.example", subject="alice")
    counter = StatsCounter(now=10**9)
    for identity, minutes in ((ALICE, 0), (ALICE, 5), (BOB, 60), (other, 1440), (None, 1441), (None, 6)):
        counter.add(100, identity, 10**9 - minutes * MINUTE)
    counter.add_undecodable(50)
    stats = counter.result()
    assert (stats.total, stats.logged_in, stats.anonymous, stats.undecodable, stats.users) == (7, 4, 2, 1, 3)
    assert stats.issuers == {ALICE.issuer: 3, other.issuer: 1}
    assert stats.idle == {"5 minutes": 2, "1 hour": 2, "1 day": 1, "longer": 1}


@pytest.mark.parametrize("count", [1, 2, 10, 99, 100, 101, 1000])
def test_percentiles_are_approximated_for_all_sizes(count: int) -> None:
    counter = StatsCounter(now=0)
    sizes = [random.randint(1, 5000) for _ in range(count)]
    for size in sizes:
        counter.add(size, None, 0)
    sizes.sort()
    stats = counter.result()
    found = [stats.size_p50, stats.size_p90, stats.size_p99, stats.size_max]
    assert found == [sizes[-(-count * percent // 100) - 1] for percent in (50, 90, 99, 100)]


def test_statistics_of_no_sessions_are_zero() -> None:
    stats = StatsCounter(now=0).result()
    assert (stats.total, stats.users, stats.size_p50, stats.size_max) == (0, 0, 0, 0)


@pytest.mark.parametrize(("users", "most_wrong"), [(1000, 0), (100_000, 100)])
def test_users_are_counted_in_constant_memory(users: int, most_wrong: int) -> None:
    tracemalloc.start()
    counter = StatsCounter(now=0)
    for number in range(users):
        for _ in range(2):
            counter.add(300 + number % 500, Identity(issuer="https://op.example", subject=f"user-{number}"), 0)
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(counter.result().users - users) <= most_wrong
    assert peak < 4 * 2**20, (grown, peak)


@pytest.mark.anyio
async def test_a_store_is_counted_record_by_record(clock: FakeClock) -> None:
    app = make_app(clock=clock, timeouts=Timeouts(idle=7200))
    plugin = plugin_in(app)
    async with client_of(app) as alice, client_of(app) as visitor:
        await visitor.post("/visit")
        clock.advance(seconds=1800)
        await alice.post("/login/alice")
        await plugin.store.inner.create("poisoned", Entry(b"not a record", clock.now() + 1000))
        stats = await plugin.sessions.stats()
    assert (stats.total, stats.logged_in, stats.anonymous, stats.undecodable) == (3, 1, 1, 1)
    assert stats.idle == {"5 minutes": 1, "1 hour": 1, "1 day": 0, "longer": 0}
