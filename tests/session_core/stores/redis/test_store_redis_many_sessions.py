"""A user with very many sessions: each server command and each turn of the event loop stays short."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from session_core import Identity
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis.layout import encode_record, member_of
from session_core.stores.redis.store import RedisStore
from tests.support.opened_store import opened_store
from tests.support.redis_servers import RedisCluster, RedisServer, cluster, needed_redis, needed_valkey, running, statistics

pytestmark = pytest.mark.anyio
FOREVER = 2**41
MANY = 10_000
USER = Identity(issuer="https://op", subject="many").user_key
MOST_MS = 20
"""Allowed delay of another request in seconds."""


@pytest.fixture(params=["redis", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One server, because three nodes would share the same commands."""
    if request.param == "cluster":
        with cluster(needed_valkey(), primaries=1, replicas=False) as servers:
            yield servers.primaries[0]
    else:
        with running(needed_redis()) as server:
            yield server


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    clustered = b"cluster_enabled:1" in server.admin("INFO", "cluster")  # type: ignore[operator]
    async with opened_store(RedisStore(RedisCluster([server], 1).url if clustered else server.url, timeout=60)) as store:
        yield store


def fill(server: RedisServer, store: RedisStore, number: int = MANY, *, milliseconds: int | None = None) -> list[str]:
    """The result of this many logins, of rising rank."""
    keys = [session_key(new_session_id()) for _ in range(number)]
    index = store._layout.user_index(USER)
    with redis.Redis(port=server.port, protocol=2) as client:
        pipeline = client.pipeline(transaction=False)
        for rank, key in enumerate(keys, 1):
            value = encode_record(1, Entry(bytes(300), FOREVER, USER, None, rank))
            pipeline.set(store._layout.record(key), value, px=milliseconds)
            pipeline.zadd(index, {member_of(key): rank})
        pipeline.execute()
    return keys


def waited(server: RedisServer) -> float:
    """Microseconds for which the server had work, and other programs the processors."""
    return int(Path(f"/proc/{server._running.pid}/schedstat").read_text().split()[1]) / 1000


async def on_the_side(server: RedisServer, call: Coroutine[Any, Any, Any]) -> Any:
    """Run a call; assert that it blocked neither the server nor the event loop for long."""
    server.admin("CONFIG", "RESETSTAT")
    gc.collect()
    gc.disable()  # the duration of a full garbage collection depends on the whole test run
    longest, before, loop, done, kept_waiting = 0.0, time.thread_time(), asyncio.get_running_loop(), False, waited(server)

    def turn() -> None:
        nonlocal longest, before
        now = time.thread_time()
        longest, before = max(longest, now - before), now
        if not done:
            loop.call_soon(turn)

    try:
        loop.call_soon(turn)
        result = await call
    finally:
        done = True
        gc.enable()
    assert longest * 1000 < MOST_MS, "the event loop"
    stats = statistics(server, "commandstats")
    kept_waiting = waited(server) - kept_waiting
    slow = {
        name: each
        for name, each in stats.items()
        if name.startswith("cmdstat") and each["usec"] - kept_waiting > each["calls"] * MOST_MS * 1000 / 4
    }
    assert slow == {}
    return result


async def test_listing_blocks_neither_server_nor_event_loop(server: RedisServer, store: RedisStore) -> None:
    keys = fill(server, store)
    found = await on_the_side(server, store.find(SessionIndex(user=USER)))
    assert sorted(stored.key for stored in found) == sorted(keys)


async def test_ending_all_but_one_blocks_neither(server: RedisServer, store: RedisStore) -> None:
    keys = fill(server, store)
    ended = await on_the_side(server, store.delete_by(SessionIndex(user=USER), keep=keys[77]))
    assert sorted(ended) == sorted({*keys} - {keys[77]})
    assert [stored.key for stored in await store.find(SessionIndex(user=USER))] == [keys[77]]
    assert server.admin("ZCARD", store._layout.user_index(USER)) == 1


async def test_listing_after_all_have_expired_blocks_neither(server: RedisServer, store: RedisStore) -> None:
    fill(server, store, milliseconds=1)
    assert await on_the_side(server, store.find(SessionIndex(user=USER))) == []
    assert server.admin("EXISTS", store._layout.user_index(USER)) == 0


async def test_a_login_at_the_limit_blocks_neither(server: RedisServer, store: RedisStore) -> None:
    keys = fill(server, store)
    entry = Entry(bytes(300), FOREVER, USER, None, MANY + 1)
    assert await on_the_side(server, store.create(session_key(new_session_id()), entry, limit=MANY)) == (keys[0],)


async def test_a_login_after_the_limit_was_lowered_blocks_neither(server: RedisServer, store: RedisStore) -> None:
    keys = fill(server, store)
    old, entry = session_key(new_session_id()), Entry(bytes(300), FOREVER, USER, None, MANY + 1)
    await store.create(old, Entry(b"", FOREVER))
    new = session_key(new_session_id(after=old))
    call = store.rotate(old, new, entry, version=1, successor_until=FOREVER, limit=1000)
    assert sorted(await on_the_side(server, call)) == sorted(keys[: MANY - 999])
    found = await store.find(SessionIndex(user=USER))
    assert sorted(stored.key for stored in found) == sorted([*keys[MANY - 999 :], new])


async def test_a_session_regenerated_very_often_ends_quickly(server: RedisServer, store: RedisStore) -> None:
    """Each rotation leaves a pointer for a minute; ending the sessions follows the chain once, not once per pointer."""
    key = session_key(new_session_id())
    entry = Entry(b"", FOREVER, USER, None, 1)
    await store.create(key, entry)
    for _ in range(600):
        old, key = key, session_key(new_session_id(after=key))
        await store.rotate(old, key, entry, version=1, successor_until=FOREVER)
    assert [stored.key for stored in await on_the_side(server, store.find(SessionIndex(user=USER)))] == [key]
    assert await on_the_side(server, store.delete_by(SessionIndex(user=USER))) == (key,)


async def test_a_login_in_one_step_counts_one_in_several_steps(server: RedisServer, store: RedisStore) -> None:
    """The later login ends the reservation of the one in progress, whose session is never created."""
    kept, *_ = fill(server, store, 300)
    slow, fast = session_key(new_session_id()), session_key(new_session_id())
    entry, token = Entry(b"", FOREVER, USER, None, 1000), b"8 bytes."
    await store._stepped_logins._reserve([slow], entry, token, version=0)
    await store._stepped_logins._enter(slow, entry, 400, moves=None)
    await store.delete_by(SessionIndex(user=USER), keep=kept)
    assert sorted(await store.create(fast, Entry(b"", FOREVER, USER, None, 1001), limit=1)) == sorted([kept, slow])
    assert await store._steps.create(slow, entry, 0, token) == ()
    assert [stored.key for stored in await store.find(SessionIndex(user=USER))] == [fast]
    assert await store.load(slow) is None


async def test_concurrent_logins_of_a_user_with_many_sessions_never_exceed_the_limit(
    server: RedisServer, store: RedisStore
) -> None:
    """Logins in several steps and in one: the user is just below the number that one script reads."""
    limit = 250
    for turn in range(3):
        server.admin("FLUSHALL")
        keys = fill(server, store, limit + turn)
        entries = {session_key(new_session_id()): Entry(b"", FOREVER, USER, None, 1000 + number) for number in range(20)}
        ended = await asyncio.gather(*(store.create(key, entry, limit=limit) for key, entry in entries.items()))
        found = {stored.key for stored in await store.find(SessionIndex(user=USER))}
        assert len(found) == limit
        gone = [key for some in ended for key in some]
        assert sorted([*found, *gone]) == sorted([*keys, *entries])
