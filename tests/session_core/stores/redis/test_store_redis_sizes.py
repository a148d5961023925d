"""The memory that a session takes in Redis, and what remains afterwards."""

from __future__ import annotations

import itertools
import time

import pytest

from session_core.identity import op_session_key, user_key
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis.layout import encode_record, key_of, member_of, read_record
from session_core.stores.redis.store import RedisStore
from session_core.testing import FakeClock
from tests.support.redis_servers import RedisServer, statistics

pytestmark = pytest.mark.anyio
HOUR = 3_600_000


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(params=["valkey", "old_redis"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, RedisServer)
    return found


async def test_a_session_of_300_bytes_takes_700_bytes_at_most(server: RedisServer) -> None:
    """Of a user and a provider session without others, the worst case: both indexes exist for it alone."""
    store = RedisStore(server.url)
    await store.open()
    key = session_key(new_session_id())
    entry = Entry(b"x" * 300, now() + HOUR, user_key("https://op", "alice"), op_session_key("https://op", "sid"), now())
    await store.create(key, entry)
    assert await store.replace(key, entry, version=1) == 2
    names = server.admin("KEYS", "*")
    assert isinstance(names, list)
    assert len(names) == 3
    sizes = [server.admin("MEMORY", "USAGE", name) for name in names]
    assert sum(size for size in sizes if isinstance(size, int)) <= 700
    await store.close()


async def test_every_key_expires(valkey: RedisServer) -> None:
    """No key lacks an expiry, and none outlives the session by more than two hours."""
    store = RedisStore(valkey.url)
    await store.open()
    old, until = session_key(new_session_id()), now() + HOUR
    new = session_key(new_session_id(after=old))
    await store.create(old, Entry(b"", until, "user", "op"))
    await store.rotate(old, new, Entry(b"", until, "user", "op"), version=1, successor_until=now() + 60_000)
    await store.touch(new, until + 5 * HOUR)
    await store.claim("name", until)
    await store.ping()
    names = valkey.admin("KEYS", "*")
    assert isinstance(names, list)
    lives = {name: valkey.admin("PTTL", name) for name in names}
    assert len(lives) == 6
    assert all(isinstance(life, int) and 0 < life <= 8 * HOUR for life in lives.values())
    assert min(life for name, life in lives.items() if name[3:4] in b"uo" and isinstance(life, int)) >= 6 * HOUR - 1000
    await store.close()


@pytest.mark.parametrize("owners", [("user", "op"), ("user", None), (None, "op")])
@pytest.mark.parametrize("by", ["touch", "replace"])
async def test_an_index_outlives_its_sessions(valkey: RedisServer, by: str, owners: tuple[str | None, str | None]) -> None:
    """Also those extended without a write to the index: a revocation must find them."""
    clock = FakeClock()
    clock.advance(seconds=-(clock.now() % HOUR) / 1000)
    store = RedisStore(valkey.url, clock=clock)
    await store.open()
    await store.create("key", Entry(b"", clock.now() + 600_000, *owners))
    for version, minutes in enumerate((59, 61, 119, 300), 1):
        until = clock.now() + minutes * 60_000
        if by == "touch":
            await store.touch("key", until)
        else:
            await store.replace("key", Entry(b"", until, *owners), version=version)
        names = valkey.admin("KEYS", "sc:[uo]*")
        assert isinstance(names, list)
        assert len(names) == 2 - owners.count(None)
        assert min(int(str(valkey.admin("PTTL", name))) for name in names) >= (minutes + 1) * 60_000 - 5000
    await store.close()


@pytest.mark.parametrize("owners", [("user", "op"), (None, None)])
async def test_a_write_that_needs_no_index_is_one_command(valkey: RedisServer, owners: tuple[str | None, str | None]) -> None:
    """A session without an owner at any time, others within the hour of their expiry."""
    clock = FakeClock()
    clock.advance(seconds=-(clock.now() % HOUR) / 1000)
    store = RedisStore(valkey.url, clock=clock)
    await store.open()
    later = 59 if owners[0] else 300
    await store.create("key", Entry(b"", clock.now() + 600_000, *owners))
    valkey.admin("CONFIG", "RESETSTAT")
    assert await store.touch("key", clock.now() + later * 60_000 - 1)
    assert await store.replace("key", Entry(b"", clock.now() + later * 60_000, *owners), version=1) == 2
    sent = statistics(valkey, "commandstats")
    scripts = [each for name, each in sent.items() if name in {"cmdstat_eval", "cmdstat_evalsha"}]
    assert sum(each["calls"] - each["failed_calls"] for each in scripts) == 2  # a script that the server did not know has failed
    await store.close()


async def test_an_index_does_not_grow_with_sessions_that_have_ended(valkey: RedisServer) -> None:
    """The index of a user who logs in and out every day does not grow."""
    store = RedisStore(valkey.url)
    await store.open()
    for _ in range(100):
        key = session_key(new_session_id())
        await store.create(key, Entry(b"", now() + HOUR, "user"))
        await store.delete(key)
    (name,) = (name for name in valkey.admin("KEYS", "sc:u*"))  # type: ignore[attr-defined]
    assert int(str(valkey.admin("ZCARD", name))) <= 16
    assert list(await store.find(SessionIndex(user="user"))) == []
    assert valkey.admin("EXISTS", name) == 0
    await store.close()


async def test_prefixes_separate_applications(valkey: RedisServer) -> None:
    stores = [RedisStore(f"{valkey.url}/1?prefix=shop:"), RedisStore(valkey.url + "/1", prefix="blog:")]
    for store in stores:
        await store.open()
        await store.create("key", Entry(store._layout.prefix, 2**41, "user"))
    for store in stores:
        (found,) = await store.find(SessionIndex(user="user"))
        assert [stored async for stored in store.scan()] == [found]
        assert found.entry.data == store._layout.prefix
        assert await store.delete("key") == ("key",)
        await store.close()
    assert valkey.admin("DBSIZE") == 0


@pytest.mark.parametrize("version", [1, 2**24 - 1, 2**24, 2**40])
@pytest.mark.parametrize("expires_at", [0, 1, 1_577_836_799_999, 1_577_836_800_000, 2**41, 2**52])
def test_every_record_is_restored(version: int, expires_at: int) -> None:
    owners = (None, "u", "short", user_key("a", "b"), "A" * 42 + "B", "_" * 43, "x" * 300)
    ranks = (0, -1, -(2**40), 1_577_836_800_000, 2**41, 2**52)
    for user, op_session, rank in itertools.product(owners, owners, ranks):
        entry = Entry(b"\x00data", expires_at, user, op_session, rank)
        stored = read_record("key", encode_record(version, entry), -1)
        assert stored is not None
        assert (stored.version, stored.entry) == (version, entry)


@pytest.mark.parametrize("key", [session_key("A" * 46), "A" * 43, "A" * 42 + "B" + "tag", "k", "x" * 100, "-_" * 23, "+/" * 23])
def test_every_key_is_restored(key: str) -> None:
    assert key_of(member_of(key)) == key


def test_a_key_with_braces_is_refused() -> None:
    with pytest.raises(ValueError, match="braces"):
        member_of("a}b")
