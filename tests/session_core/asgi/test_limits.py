"""Rate limits hold over all processes: never more requests than the limit, with few extra store calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import pytest

from session_core.asgi.limits import RateLimits
from session_core.errors import StoreUnavailableError, TooManyRequestsError
from session_core.events import Events
from session_core.sessions.notes import is_note
from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio

LIMIT = 5


class CountedStore(MemoryStore):
    """A memory store whose calls yield to the event loop, as remote calls do, and are counted."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.calls: list[str] = []
        self.out = False

    async def _turn(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.out:
            raise StoreUnavailableError

    async def load(self, key: str) -> Any:
        await self._turn("load")
        return await super().load(key)

    async def create(self, key: str, entry: Any, *, limit: int = 0) -> Any:
        await self._turn("create")
        return await super().create(key, entry, limit=limit)

    async def replace(self, key: str, entry: Any, *, version: int) -> Any:
        await self._turn("replace")
        return await super().replace(key, entry, version=version)


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[CountedStore]:
    async with opened_store(CountedStore(clock)) as store:
        yield store


def process(store: CountedStore, clock: FakeClock, **options: Any) -> RateLimits:
    return RateLimits(store, clock, Events(clock), **options)


async def allowed(limits: RateLimits, times: int, client: str = "192.0.2.1", **options: Any) -> int:
    outcomes = await asyncio.gather(
        *(limits.take("login", client, **{"limit": LIMIT, **options}) for _ in range(times)), return_exceptions=True
    )
    assert all(outcome is None or isinstance(outcome, TooManyRequestsError) for outcome in outcomes), outcomes
    return outcomes.count(None)


async def test_the_limit_holds_until_the_window_ends(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock)
    for _ in range(LIMIT):
        await limits.take("login", "192.0.2.1", limit=LIMIT)
        clock.advance(seconds=2)
    with pytest.raises(TooManyRequestsError) as refused:
        await limits.take("login", "192.0.2.1", limit=LIMIT)
    assert refused.value.retry_after == 50
    clock.advance(seconds=50)
    assert await allowed(limits, 9) == LIMIT


async def test_clients_and_kinds_are_counted_separately(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock)
    assert await allowed(limits, 9) == LIMIT
    assert await allowed(limits, 9, "192.0.2.2") == LIMIT
    await limits.take("callback", "192.0.2.1", limit=LIMIT)


async def test_all_processes_count_together(store: CountedStore, clock: FakeClock) -> None:
    several = [process(store, clock) for _ in range(4)]
    assert sum(await asyncio.gather(*(allowed(limits, 3) for limits in several))) == LIMIT
    for limits in several:
        assert await allowed(limits, 2) == 0


async def test_processes_with_shares_never_exceed_the_limit(store: CountedStore, clock: FakeClock) -> None:
    several = [process(store, clock) for _ in range(4)]
    total = sum(await asyncio.gather(*(allowed(limits, 50, limit=100, share=20) for limits in several)))
    assert 100 - 3 * 19 <= total <= 100


async def test_a_request_costs_one_call_below_and_none_above_the_limit(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock)
    for _ in range(LIMIT):
        await limits.take("login", "192.0.2.1", limit=LIMIT)
    assert store.calls == ["create"] + ["replace"] * (LIMIT - 1)
    store.calls.clear()
    assert await allowed(limits, 100) == 0
    assert store.calls == []


async def test_concurrent_requests_share_a_call(store: CountedStore, clock: FakeClock) -> None:
    assert await allowed(process(store, clock), 60, limit=60) == 60
    assert store.calls == ["create", "replace"]


async def test_a_share_is_claimed_with_one_call(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock)
    for _ in range(40):
        await limits.take("form", "192.0.2.1", limit=600, share=20)
    assert store.calls == ["create", "replace"]


async def test_the_addresses_of_an_ipv6_prefix_count_as_one(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock)
    for number in range(LIMIT):
        await limits.take("login", f"2001:db8::{number + 1:x}", limit=LIMIT)
    assert await allowed(limits, 1, "2001:db8::ffff") == 0
    assert await allowed(limits, 1, "2001:db8:0:1::1") == 1


async def test_exempt_networks_have_no_limit(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock, exempt=[ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")])
    assert await allowed(limits, 20) == 20
    assert await allowed(limits, 20, "2001:db8::1") == 20
    assert await allowed(limits, 20, "198.51.100.1") == LIMIT
    assert await allowed(limits, 20, "") == LIMIT


async def test_an_outage_reaches_all_waiting_requests(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock)
    store.out = True
    outcomes = await asyncio.gather(*(limits.take("login", "192.0.2.1", limit=LIMIT) for _ in range(30)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    assert len(store.calls) == 1
    store.out = False
    assert await allowed(limits, 9) == LIMIT


async def test_a_cancelled_request_does_not_cancel_the_others(store: CountedStore, clock: FakeClock) -> None:
    limits = process(store, clock)
    first = asyncio.ensure_future(limits.take("login", "192.0.2.1", limit=LIMIT))
    others = [asyncio.ensure_future(limits.take("login", "192.0.2.1", limit=LIMIT)) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
    assert await asyncio.gather(*others) == [None, None, None]


async def test_the_counter_is_not_listed_as_a_session(store: CountedStore, clock: FakeClock) -> None:
    await process(store, clock).take("login", "192.0.2.1", limit=LIMIT)
    stored = [each async for each in store.scan()]
    assert [is_note(each.entry.data) for each in stored] == [True]
    assert b"192.0.2.1" not in stored[0].entry.data + stored[0].key.encode()
