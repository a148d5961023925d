"""The index of a user: order, lifetime, and removal of members."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis.layout import EPOCH_MS, encode_record, key_of, member_of
from session_core.stores.redis.steps import Entered
from session_core.stores.redis.store import RedisStore
from tests.support.redis_servers import RedisServer, statistics

pytestmark = pytest.mark.anyio
HOUR = 3_600_000
SMALL = 8
"""Up to this number of members, adding one cleans nothing."""


def now() -> int:
    return time.time_ns() // 1_000_000


def entry(rank: int = 0, *, hours: int = 1) -> Entry:
    return Entry(b"", now() + hours * HOUR, "user", None, rank)


class Index:
    """The index of one user on a separate server."""

    def __init__(self, server: RedisServer, store: RedisStore) -> None:
        self.server = server
        self.store = store
        self.name = store._layout.user_index("user")

    async def add(self, number: int = 1, **options: int) -> list[str]:
        keys = [session_key(new_session_id()) for _ in range(number)]
        for rank, key in enumerate(keys):
            await self.store.create(key, entry(rank, **options))
        return keys

    def expire(self, *keys: str) -> None:
        """As on the server: the index is not updated."""
        self.server.admin("DEL", *(self.store._layout.record(key) for key in keys))

    @property
    def members(self) -> list[str]:
        found = self.server.admin("ZRANGE", self.name, 0, -1)
        assert isinstance(found, list)
        return [key_of(member) for member in found]

    @property
    def scores(self) -> list[int]:
        found = self.server.admin("ZRANGE", self.name, 0, -1, "WITHSCORES")
        assert isinstance(found, list)
        return [int(score) for score in found[1::2]]

    @property
    def lives(self) -> int:
        return int(str(self.server.admin("PTTL", self.name)))

    async def live(self) -> set[str]:
        return {stored.key for stored in await self.store.find(SessionIndex(user="user"))}


@pytest.fixture
async def index(valkey: RedisServer) -> AsyncIterator[Index]:
    store = RedisStore(valkey.url)
    await store.open()
    yield Index(valkey, store)
    await store.close()


async def test_members_are_in_the_order_of_addition(index: Index) -> None:
    keys = await index.add(20)
    assert index.members == keys
    assert index.scores == sorted(set(index.scores))
    # The last one's score stays used, and a member added again keeps its own.
    await index.store.delete(keys[3])
    await index.store.replace(keys[5], entry(hours=30), version=1)
    assert [key for key in index.members if key in keys] == [key for key in keys if key in index.members]
    (last,) = await index.add()
    assert index.members[-1] == last


async def test_a_member_added_again_keeps_its_score(index: Index) -> None:
    """The command is repeated after a lost reply; a login reads only members added before it."""
    one, two = member_of(session_key(new_session_id())), member_of(session_key(new_session_id()))
    steps, until = index.store._steps, now() + HOUR
    first = await steps.enlist(index.name, one, until)
    second = await steps.enlist(index.name, two, until)
    assert second.score > first.score
    assert await steps.enlist(index.name, one, until) == Entered(first.score, 2)
    assert await steps.enlist(index.name, two, until) == Entered(second.score, 2)


async def test_a_rotated_session_takes_the_position_of_the_old_one(index: Index) -> None:
    keys = await index.add(3)
    new = session_key(new_session_id(after=keys[1]))
    scores = index.scores
    await index.store.rotate(keys[1], new, entry(hours=30), version=1, successor_until=now() + 60_000)
    assert index.members == [keys[0], new, keys[2]]
    assert index.scores == scores
    assert index.lives > 30 * HOUR - 1000


async def test_an_index_lives_as_long_as_its_longest_session(index: Index) -> None:
    await index.add(hours=30)
    (short,) = await index.add()
    assert index.lives > 30 * HOUR - 1000
    new = session_key(new_session_id(after=short))
    await index.store.rotate(short, new, entry(), version=1, successor_until=now() + 60_000)
    assert index.lives > 30 * HOUR - 1000
    await index.add(hours=60)
    assert index.lives > 60 * HOUR - 1000


async def test_a_small_index_is_not_cleaned_by_additions(index: Index) -> None:
    dead = await index.add(SMALL - 1)
    index.expire(*dead)
    (one,) = await index.add()
    assert index.members == [*dead, one]


async def test_a_large_index_is_cleaned_by_additions_of_dead_members_only(index: Index) -> None:
    live, dead = await index.add(10), await index.add(10)
    index.expire(*dead)
    entered: list[str] = []
    while set(index.members) & set(dead):  # each one looks at four at random
        assert len(entered) < 1000
        entered += await index.add()
    assert entered
    assert index.members == [*live, *entered]
    assert await index.live() == {*live, *entered}


async def test_a_large_index_that_has_become_small_is_left_unchanged(index: Index) -> None:
    keys = await index.add(30)
    await index.store.delete_by(SessionIndex(user="user"), keep=keys[0])
    left = await index.add(SMALL - 1)
    index.expire(left[0])
    (one,) = await index.add()
    assert index.members == [keys[0], *left, one] or index.members == [keys[0], *left[1:], one]
    assert await index.live() == {keys[0], *left[1:], one}


async def test_listing_removes_dead_members_only(index: Index) -> None:
    keys = await index.add(6)
    index.expire(*keys[::2])
    assert await index.live() == set(keys[1::2])
    assert index.members == keys[1::2]
    # A key that exists again meanwhile stays in the index.
    await index.store._steps.delist(index.name, [member_of(key) for key in keys])
    assert index.members == keys[1::2]


async def test_ending_all_removes_all_but_the_kept_one(index: Index) -> None:
    keys = await index.add(250)
    index.expire(*keys[:7])
    ended = await index.store.delete_by(SessionIndex(user="user"), keep=keys[120])
    assert set(ended) == {*keys[7:120], *keys[121:]}
    assert index.members == [keys[120]]


async def test_sessions_ended_by_a_login_leave_the_index_at_once(index: Index) -> None:
    keys = await index.add(4)
    login = session_key(new_session_id())
    assert await index.store.create(login, entry(9), limit=3) == (keys[0], keys[1])
    assert index.members == [keys[2], keys[3], login]


async def test_of_equal_ranks_every_node_ends_the_same_session(index: Index) -> None:
    keys = sorted([session_key(new_session_id()) for _ in range(6)], key=member_of)
    for key in (keys[3], keys[0], keys[5], keys[1], keys[4], keys[2]):
        await index.store.create(key, entry(7))
    login = session_key(new_session_id())
    assert await index.store.create(login, entry(8), limit=4) == tuple(keys[:3])


async def test_a_touch_changes_the_expiry_only(index: Index) -> None:
    """In the record's compact form, which covers the times of a few decades; a test clock may be beyond them."""
    key, before = session_key(new_session_id()), Entry(b"data", now() + HOUR, "user", "op", now())
    await index.store.create(key, before)
    last = EPOCH_MS + 2**40 - 1
    for until in (now() + 2 * HOUR, now() + 3 * HOUR, last, last + 1, last + HOUR):  # the last two are beyond
        assert await index.store.touch(key, until)
        stored = await index.store.load(key)
        assert stored is not None
        assert (stored.version, stored.entry) == (1, Entry(b"data", until, "user", "op", before.rank))
        assert index.server.admin("STRLEN", index.store._layout.record(key)) == len(encode_record(1, stored.entry))


async def test_a_session_created_or_rotated_with_a_past_expiry_does_not_exist(index: Index) -> None:
    """The server refuses a lifetime of zero, so the scripts delete instead."""
    (old,) = await index.add()
    new = session_key(new_session_id(after=old))
    assert await index.store.rotate(old, new, entry(hours=-1), version=1, successor_until=now() + HOUR) == ()
    assert await index.store.create(begun := session_key(new_session_id()), entry(hours=-1)) == ()
    assert [await index.store.load(key) for key in (old, new, begun)] == [None, None, None]
    assert await index.live() == set()
    assert [await index.store.claim("name", now() - HOUR) for _ in range(2)] == [True, True]


async def test_the_smallest_record_can_be_extended_replaced_and_moved(index: Index) -> None:
    """14 bytes: without data, user and OP session."""
    key, rank, until = session_key(new_session_id()), now(), now() + HOUR
    await index.store.create(key, Entry(b"", until, rank=rank))
    assert len(encode_record(1, Entry(b"", until, rank=rank))) == 14
    assert await index.store.touch(key, until + HOUR)
    assert await index.store.replace(key, Entry(b"", until + 2 * HOUR, rank=rank), version=1) == 2
    new = session_key(new_session_id(after=key))
    assert await index.store.rotate(key, new, Entry(b"", until, rank=rank), version=2, successor_until=now() + HOUR) == ()
    assert await index.store.touch(new, until + 3 * HOUR)
    stored = await index.store.load(new)
    assert stored is not None
    assert stored.entry == Entry(b"", until + 3 * HOUR, rank=rank)
    assert await index.store.delete(key) == (new,)


@pytest.mark.parametrize("moves", [False, True])
async def test_a_write_that_changes_one_owner_is_found_under_the_new_one(index: Index, moves: bool) -> None:
    """With the same expiry, and with a later one."""
    key, owners = session_key(new_session_id()), [("u", "o"), ("v", "o"), ("v", "p"), (None, "p"), ("w", "p"), ("w", None)]
    begun = now() + HOUR
    await index.store.create(key, Entry(b"", begun, "u", "o"))
    for version, (user, op_session) in enumerate(owners, 1):
        until = begun + version * HOUR if moves else begun
        assert await index.store.replace(key, Entry(b"", until, user, op_session), version=version) == version + 1
        for name in "uvw":
            found = await index.store.find(SessionIndex(user=name))
            assert [stored.key for stored in found] == ([key] if name == user else [])
        for name in "op":
            found = await index.store.find(SessionIndex(op_session=name))
            assert [stored.key for stored in found] == ([key] if name == op_session else [])


async def test_a_deletion_that_ends_no_session_announces_nothing(index: Index) -> None:
    (key,) = await index.add()
    index.server.admin("CONFIG", "RESETSTAT")
    await index.store.delete("unknown")
    await index.store.delete_by(SessionIndex(user="unknown"))
    await index.store.delete_by(SessionIndex(user="user"), keep=key)
    await index.store.create(session_key(new_session_id()), entry(), limit=2)
    assert "cmdstat_publish" not in statistics(index.server, "commandstats")
    await index.store.delete(key)
    assert statistics(index.server, "commandstats")["cmdstat_publish"]["calls"] == 1
