"""Features of a cluster: migrated slots, killed primaries, reservations across slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from redis.crc import key_slot

from session_core.errors import ConfigurationError, SessionConflictError, StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis.cluster_login import SteppedLogins
from session_core.stores.redis.layout import Layout
from session_core.stores.redis.store import RedisStore
from tests.support.opened_store import opened_store
from tests.support.redis_servers import RedisCluster, RedisServer, cluster, needed_valkey, replication

pytestmark = pytest.mark.anyio
FOREVER = 2**41
LAYOUT = Layout(b"sc:")
TOKEN = b"8 bytes."


def test_a_regenerated_id_is_in_the_slot_of_the_previous_one() -> None:
    slots = set()
    for _ in range(100):
        old = session_key(new_session_id())
        new = session_key(new_session_id(after=old))
        assert new[:43] != old[:43]
        assert key_slot(LAYOUT.record(new)) == key_slot(LAYOUT.record(old))
        slots.add(key_slot(LAYOUT.record(old)))
    assert len(slots) > 80


async def test_keys_of_two_slots_cannot_be_rotated(valkey_cluster: RedisCluster) -> None:
    store = RedisStore(valkey_cluster.url)
    await store.open()
    await store.create("old", Entry(b"", FOREVER))
    with pytest.raises(ConfigurationError):
        await store.rotate("old", "new", Entry(b"", FOREVER), version=1, successor_until=FOREVER)
    assert await store.load("old") is not None
    await store.close()


async def test_a_cluster_and_a_single_server_are_not_confused(valkey_cluster: RedisCluster, valkey: RedisServer) -> None:
    """The error names the right URL scheme."""
    single = RedisStore(valkey_cluster.servers[0].url)
    await single.open()
    with pytest.raises(StoreUnavailableError, match=r"redis\+cluster"):
        await asyncio.gather(*(single.load(str(number)) for number in range(20)))
    await single.close()
    clustered = RedisStore(f"redis+cluster://127.0.0.1:{valkey.port}")
    with pytest.raises(StoreUnavailableError, match="no cluster"):
        await clustered.open()
    await clustered.close()


async def test_a_login_that_lost_its_reservation_fails(valkey_cluster: RedisCluster) -> None:
    """The later login ends the reservation of the earlier one, whose record is never created."""
    store = RedisStore(valkey_cluster.url)
    await store.open()
    slow, fast = session_key(new_session_id()), session_key(new_session_id())
    entry = Entry(b"", FOREVER, "user", None, 1)
    await store._stepped_logins._reserve([slow], entry, TOKEN, version=0)
    await store._stepped_logins._enter(slow, entry, 1, moves=None)
    assert await store.create(fast, Entry(b"", FOREVER, "user", None, 2), limit=1) == (slow,)
    assert await store._steps.create(slow, entry, 0, TOKEN) == ()
    assert await store.load(slow) is None
    assert [stored.key for stored in await store.find(SessionIndex(user="user"))] == [fast]
    await store.close()


async def test_an_anonymous_session_ends_with_the_login_that_lost_its_reservation(valkey_cluster: RedisCluster) -> None:
    """Its id was to be replaced, so it must not open a session any more."""
    store = RedisStore(valkey_cluster.url)
    await store.open()
    old = session_key(new_session_id())
    new, later = session_key(new_session_id(after=old)), session_key(new_session_id())
    await store.create(old, Entry(b"", FOREVER))
    entry = Entry(b"", FOREVER, "user", None, 1)
    await store._stepped_logins._reserve([new, old], entry, TOKEN, version=1)
    await store._stepped_logins._enter(new, entry, 1, moves=old)
    assert await store.create(later, Entry(b"", FOREVER, "user", None, 2), limit=1) == (new,)
    assert await store._steps.rotate(old, new, entry, version=1, successor_until=FOREVER, limit=0, token=TOKEN) == ()
    assert [await store.load(key) for key in (old, new)] == [None, None]
    await store.close()


async def test_a_login_that_fails_ends_no_session(valkey_cluster: RedisCluster) -> None:
    """The session to be moved is checked for changes before any other step."""
    store = RedisStore(valkey_cluster.url)
    await store.open()
    old, other = session_key(new_session_id()), session_key(new_session_id())
    new = session_key(new_session_id(after=old))
    await store.create(old, Entry(b"", FOREVER))
    await store.create(other, Entry(b"", FOREVER, "user"))
    with pytest.raises(SessionConflictError):
        await store.rotate(old, new, Entry(b"", FOREVER, "user"), version=7, successor_until=FOREVER, limit=1)
    assert await store.load(other) is not None
    await store.close()


async def test_a_session_being_regenerated_counts_once(valkey_cluster: RedisCluster) -> None:
    """The index has the session and its reservation. Both count as one session, so a login at the limit ends neither."""
    store = RedisStore(valkey_cluster.url)
    await store.open()
    old = session_key(new_session_id())
    new, login = session_key(new_session_id(after=old)), session_key(new_session_id())
    entry = Entry(b"", FOREVER, "user", None, 1)
    await store.create(old, entry)
    await store._stepped_logins._reserve([new, old], entry, TOKEN, version=1)
    await store._stepped_logins._enter(new, entry, 0, moves=old)
    assert await store.create(login, Entry(b"", FOREVER, "user", None, 2), limit=2) == ()
    moved = store._steps.rotate(old, new, entry, version=1, successor_until=FOREVER, limit=0, token=TOKEN)
    assert await moved == ()
    assert {stored.key for stored in await store.find(SessionIndex(user="user"))} == {new, login}
    await store.close()


async def test_an_expired_reservation_is_an_outage_and_ends_nothing(valkey_cluster: RedisCluster) -> None:
    store = RedisStore(valkey_cluster.url)
    await store.open()
    old = session_key(new_session_id())
    await store.create(old, Entry(b"kept", FOREVER))
    logins = SteppedLogins(store._steps, hold=0.001)
    enter = logins._enter

    async def slowly(key: str, entry: Entry, limit: int, *, moves: str | None) -> tuple[str, ...]:
        await asyncio.sleep(0.05)
        return await enter(key, entry, limit, moves=moves)

    logins._enter = slowly  # type: ignore[method-assign]
    new = session_key(new_session_id(after=old))
    with pytest.raises(StoreUnavailableError):
        await logins.rotate(old, new, Entry(b"", FOREVER, "user"), version=1, successor_until=FOREVER, limit=1)
    assert await store.load(old) is not None
    assert await store.load(new) is None
    await store.close()


async def test_no_write_is_lost_while_a_slot_migrates(valkey_cluster: RedisCluster) -> None:
    """ASK during the migration, TRYAGAIN while only one of two keys has moved, MOVED afterwards: every increment counts once."""
    store = RedisStore(valkey_cluster.url)
    await store.open()
    key = session_key(new_session_id())
    slot = key_slot(LAYOUT.record(key))
    source = next(s for s in valkey_cluster.primaries if b"myself,master" in _line_of_slot(s, slot))
    target = next(server for server in valkey_cluster.primaries if server is not source)
    await store.create(key, Entry(b"0", FOREVER, "user"))
    moved = asyncio.Event()
    done = 0

    async def increment() -> None:
        nonlocal done, key
        while not moved.is_set() or done < 50:
            stored = await store.load(key)
            assert stored is not None
            new = Entry(b"%d" % (int(stored.entry.data) + 1), FOREVER, "user")
            if done % 10 == 9:
                new_key = session_key(new_session_id(after=key))
                await store.rotate(key, new_key, new, version=stored.version, successor_until=FOREVER)
                key = new_key
            else:
                await store.replace(key, new, version=stored.version)
            done += 1

    counting = asyncio.create_task(increment())
    for there, back in ((target, source), (source, target)):
        await asyncio.sleep(0.02)
        await asyncio.to_thread(_move, slot, back, there)
    moved.set()
    await counting
    await asyncio.to_thread(_begin_to_move, slot, source, target)
    # The slot is being migrated and its keys have moved: the old node redirects, and the new one responds to ASKING.
    stored = await store.load(key)
    assert stored is not None
    async with asyncio.timeout(30):  # half of the store's own
        assert await store.replace(key, stored.entry, version=stored.version) == stored.version + 1
        assert await store.touch(key, FOREVER + 1) is True
    await asyncio.to_thread(_end_of_move, slot, source, target)
    await asyncio.to_thread(_move, slot, target, source)
    stored = await store.load(key)
    assert stored is not None
    assert int(stored.entry.data) == done
    await store.close()


async def test_a_killed_primary_loses_no_replicated_session() -> None:
    """Under load. Replication is asynchronous: an acknowledged write that was not replicated yet may be lost."""
    with cluster(needed_valkey()) as servers:
        store = RedisStore(servers.url, timeout=2)
        await store.open()
        acknowledged: dict[str, float] = {}
        """The time at which each was started."""
        outages = 0
        stop = asyncio.Event()

        async def begin_sessions() -> None:
            nonlocal outages
            while not stop.is_set():
                begun, key = time.monotonic(), session_key(new_session_id())
                try:
                    await store.create(key, Entry(b"", FOREVER))
                    new = session_key(new_session_id(after=key))
                    await store.rotate(key, new, Entry(b"", FOREVER, "user"), version=1, successor_until=FOREVER)
                except (StoreUnavailableError, SessionConflictError):
                    outages += 1
                else:
                    acknowledged[new] = begun

        load = [asyncio.create_task(begin_sessions()) for _ in range(8)]
        await until(lambda: len(acknowledged) >= 300)
        safe = list(acknowledged)
        written, _ = await asyncio.to_thread(replication, servers.primaries[0])
        await until(lambda: replication(servers.primaries[0])[1] >= written)
        await asyncio.to_thread(servers.expect_failover, 0)
        servers.primaries[0].kill()
        killed = time.monotonic()
        async with asyncio.timeout(60):
            while True:
                with suppress(StoreUnavailableError):
                    await store.ping()
                    break

        def since() -> list[str]:
            return [key for key, begun in acknowledged.items() if begun > killed]

        begun = len(since())
        await until(lambda: len(since()) >= begun + 100)
        stop.set()
        await asyncio.gather(*load)
        assert outages < len(acknowledged)
        await store.close()
        async with opened_store(RedisStore(servers.url)) as patient:
            loaded = await asyncio.gather(*(patient.load(key) for key in (*safe, *since())))
        assert all(stored is not None for stored in loaded)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - waits for servers and other tasks
            await asyncio.sleep(0.01)


def _line_of_slot(server: RedisServer, slot: int) -> bytes:
    nodes = server.admin("CLUSTER", "NODES")
    assert isinstance(nodes, bytes)
    for line in nodes.splitlines():
        for ranged in line.split()[8:]:
            first, _, last = ranged.partition(b"-")
            if first.isdigit() and int(first) <= slot <= int(last or first):
                return line
    pytest.fail("no node has the slot")


def _move(slot: int, source: RedisServer, target: RedisServer) -> None:
    """Migrate a slot as redis-cli does."""
    _begin_to_move(slot, source, target)
    _end_of_move(slot, source, target)


def _begin_to_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    source_id, target_id = source.admin("CLUSTER", "MYID"), target.admin("CLUSTER", "MYID")
    target.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    while keys := source.admin("CLUSTER", "GETKEYSINSLOT", slot, 1):
        assert isinstance(keys, list)
        source.admin("MIGRATE", "127.0.0.1", target.port, "", 0, 60_000, "KEYS", *keys)
        time.sleep(0.005)


def _end_of_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    target_id = target.admin("CLUSTER", "MYID")
    for server in (target, source):
        server.admin("CLUSTER", "SETSLOT", slot, "NODE", target_id)
