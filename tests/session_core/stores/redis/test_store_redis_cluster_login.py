"""Limits above one, and lists, in any order of commands; the simulation covers a limit of one (see `tests/simulation`)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis.cluster_login import SteppedLogins
from session_core.stores.redis.layout import decode_reservation, member_of, owner_bytes
from session_core.stores.redis.store import RedisStore
from tests.session_core.stores.redis.stepped_commands import Stepped, orders, run_in_order
from tests.support.redis_servers import RedisCluster, cluster, needed_valkey

pytestmark = pytest.mark.anyio
FOREVER = 2**41


@pytest.fixture(scope="module")
def one_node() -> Iterator[RedisCluster]:
    with cluster(needed_valkey(), primaries=1, replicas=False) as servers:
        yield servers


@pytest.fixture(params=["one_node", "valkey_cluster"])
def servers(request: pytest.FixtureRequest) -> RedisCluster:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, RedisCluster)
    return found


class Plugins:
    """Stores of several processes, opened before the steps start."""

    def __init__(self, stores: list[RedisStore]) -> None:
        self.plain, *self._stepped = stores
        self._exchanges = [store._link._exchange for store in self._stepped]  # type: ignore[attr-defined]

    def stepped(self) -> list[RedisStore]:
        for store, exchange in zip(self._stepped, self._exchanges, strict=True):
            store._link._exchange = exchange  # type: ignore[attr-defined]
        return self._stepped


@pytest.fixture
async def plugins(servers: RedisCluster) -> AsyncIterator[Plugins]:
    async with AsyncExitStack() as stack:
        stores = [RedisStore(servers.url) for _ in range(5)]
        for store in stores:
            await store.open()
            stack.push_async_callback(store.close)
        yield Plugins(stores)


def entry(user: str, rank: int) -> Entry:
    return Entry(b"", FOREVER, user, None, rank)


def new_key(after: str | None = None) -> str:
    return session_key(new_session_id(after=after))


async def live(store: RedisStore, *keys: str) -> list[str]:
    return [key for key in keys if await store.load(key) is not None]


async def test_two_logins_and_a_rotation_never_exceed_the_limit(plugins: Plugins) -> None:
    """In three hundred orders; a rotating session counts once, so a limit of three ends nothing."""
    choose = random.Random(94)
    for number in range(300):
        user, old, limit = new_key(), new_key(), choose.choice([1, 2, 3])
        keys = [new_key(after=old), new_key(), new_key()]
        await plugins.plain.create(old, entry(user, 1))
        stores = plugins.stepped()
        calls = [
            Stepped(stores[0], stores[0].rotate(old, keys[0], entry(user, 1), version=1, successor_until=FOREVER)),
            Stepped(stores[1], stores[1].create(keys[1], entry(user, 2), limit=limit)),
            Stepped(stores[2], stores[2].create(keys[2], entry(user, 3), limit=limit)),
        ]
        order = [choose.randrange(3) for _ in range(18)]
        results = await run_in_order(calls, order)
        found = [stored.key for stored in await plugins.plain.find(SessionIndex(user=user))]
        assert len(found) <= limit, (number, limit, order)
        assert sorted(found) == sorted(await live(plugins.plain, old, *keys)), (number, limit, order)
        if limit == 3:
            assert sorted(found) == sorted(keys), (number, order, results)


async def test_two_rotations_in_a_row_are_followed(plugins: Plugins) -> None:
    """The login reads the index, then the session moves twice, then the login reads the records.

    A pointer to the new key stays for half a minute, also when the caller requests none.
    """
    old = new_key()
    keys = [new_key(after=old), new_key(after=old)]
    login = new_key()
    await plugins.plain.create(old, entry("user", 1))
    store, *_ = plugins.stepped()
    call = Stepped(store, store.create(login, entry("user", 2), limit=1))
    for _ in range(2):  # reserved and in the index
        await call.step()
    for before, after in ((old, keys[0]), (keys[0], keys[1])):
        await plugins.plain.rotate(before, after, entry("user", 1), version=1, successor_until=0)
    await call.to_its_end()
    assert await call.task == (keys[1],)
    assert await live(plugins.plain, old, *keys, login) == [login]


async def test_a_failed_login_removes_its_reservation(plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps that of another login, because later logins count reservations."""
    key, token = new_key(), b"12345678"
    store = plugins.plain

    async def fail(*_: object) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(store._steps, "create", fail)
    with pytest.raises(StoreUnavailableError):
        await store.create(key, entry("user", 1), limit=1)
    assert await store._steps.read([member_of(key)]) == [None]
    await store._stepped_logins._reserve([key], entry("user", 1), token, version=0)
    await store._steps.withdraw(key, b"87654321")
    assert decode_reservation((await store._steps.read([member_of(key)]))[0]) == (1, b"")
    await store._steps.withdraw(key, token)
    assert await store._steps.read([member_of(key)]) == [None]


async def test_a_refused_login_ends_no_session(plugins: Plugins) -> None:
    """Another request has written the session that the login moves. This is detected before sessions are ended for the limit."""
    old, other = new_key(), new_key()
    store = plugins.plain
    await store.create(old, entry("anonymous", 1))
    await store.create(other, entry("user", 1))
    await store.replace(old, entry("anonymous", 1), version=1)
    new = new_key(after=old)
    with pytest.raises(SessionConflictError):
        await store.rotate(old, new, entry("user", 2), version=1, successor_until=FOREVER, limit=1)
    assert await live(store, old, new, other) == [old, other]


async def test_a_login_refused_in_its_last_step_leaves_no_reservation(plugins: Plugins) -> None:
    """Another request writes the session that the login moves, between its first step and its last."""
    old = new_key()
    new = new_key(after=old)
    await plugins.plain.create(old, entry("anonymous", 1))
    store, *_ = plugins.stepped()
    call = Stepped(store, store.rotate(old, new, entry("user", 2), version=1, successor_until=FOREVER, limit=1))
    await call.step()
    assert decode_reservation((await plugins.plain._steps.read([member_of(new)]))[0]) is not None
    await plugins.plain.replace(old, entry("anonymous", 1), version=1)
    await call.to_its_end()
    assert isinstance(call.task.exception(), SessionConflictError)
    assert await plugins.plain._steps.read([member_of(new)]) == [None]
    assert await live(plugins.plain, old) == [old]


async def test_a_list_shows_a_rotating_session_once_in_every_order(plugins: Plugins) -> None:
    for order in orders(3, 3):
        user, old = new_key(), new_key()
        new = new_key(after=old)
        await plugins.plain.create(old, entry(user, 1))
        one, other, *_ = plugins.stepped()
        calls = [
            Stepped(one, one.find(SessionIndex(user=user))),
            Stepped(other, other.rotate(old, new, entry(user, 1), version=1, successor_until=FOREVER)),
        ]
        found, _ = await run_in_order(calls, order)
        assert isinstance(found, list)
        assert [stored.key for stored in found] in [[old], [new]], order


async def test_a_rotation_with_an_expired_reservation_changes_nothing(plugins: Plugins) -> None:
    store, old = plugins.plain, new_key()
    new = new_key(after=old)
    await store.create(old, entry("alice", 1))
    with pytest.raises(StoreUnavailableError):
        await store._steps.rotate(old, new, entry("alice", 2), version=1, successor_until=FOREVER, limit=0, token=b"not mine")
    assert await live(store, old, new) == [old]
    await store.delete(old)


async def test_ending_all_but_one_keeps_the_pointer_to_the_kept_session(plugins: Plugins) -> None:
    """The index of a cluster still has the former key of the kept session. A browser that has only the former id can log out."""
    store, user, old = plugins.plain, new_key(), new_key()
    new = new_key(after=old)
    await store.create(old, entry(user, 1))
    await store.rotate(old, new, entry(user, 1), version=1, successor_until=FOREVER)
    await store.create(other := new_key(), entry(user, 2))
    assert await store.delete_by(SessionIndex(user=user), keep=new) == (other,)
    assert await store.delete(old) == (new,)


async def test_a_logout_with_the_former_key_deletes_pointer_and_session(plugins: Plugins) -> None:
    store, old = plugins.plain, new_key()
    new = new_key(after=old)
    for ends_first in (False, True):
        await store.create(old, entry("alice", 1))
        await store.rotate(old, new, entry("alice", 1), version=1, successor_until=FOREVER)
        if ends_first:
            await store.delete(new)
        assert await store.delete(old) == (() if ends_first else (new,))
        assert await store._steps.read([member_of(old), member_of(new)]) == [None, None]


async def test_a_reservation_names_the_session_of_the_same_user_that_it_moves(plugins: Plugins) -> None:
    """Another login counts reservation and session as one. A session of another user does not count for this user."""
    store, token = plugins.plain, b"8 bytes!"
    for user in ("alice", "another"):
        old = new_key()
        new = new_key(after=old)
        await store.create(old, entry("alice", 1))
        with pytest.raises(SessionConflictError):
            await store._stepped_logins._reserve([new, old], entry(user, 2), token, version=2)
        await store._stepped_logins._reserve([new, old], entry(user, 2), token, version=1)
        (reserved,) = await store._steps.read([member_of(new)])
        assert decode_reservation(reserved) == (2, member_of(old) if user == "alice" else b"")
        await store.delete(old)
        with pytest.raises(SessionGoneError):
            await store._stepped_logins._reserve([new_key(after=old), old], entry(user, 2), token, version=1)


async def test_a_refused_rotation_removes_its_own_reservation_only(plugins: Plugins) -> None:
    store, old, token = plugins.plain, new_key(), b"8 bytes!"
    new = new_key(after=old)
    await store.create(old, entry("alice", 1))
    await SteppedLogins(store._steps, hold=60)._reserve([new, old], entry("alice", 2), token, version=1)
    for given, is_removed in ((b"not mine", False), (token, True)):
        with pytest.raises(SessionConflictError):
            await store._steps.rotate(old, new, entry("alice", 2), version=7, successor_until=FOREVER, limit=0, token=given)
        assert (await store._steps.read([member_of(new)]) == [None]) is is_removed
    assert await live(store, old, new) == [old]


async def test_a_rotation_whose_reservation_a_later_login_removed_ends_the_session(plugins: Plugins) -> None:
    """The result is the same as if the session had been live for an instant and the later login had ended it."""
    store, old, token = plugins.plain, new_key(), b"8 bytes!"
    new = new_key(after=old)
    await store.create(old, entry("alice", 1))
    await SteppedLogins(store._steps, hold=60)._reserve([new, old], entry("alice", 2), token, version=1)
    assert await store._steps.finish(member_of(new), owned=b"u" + owner_bytes("alice"), evict=True) == (new,)
    await store._steps.rotate(old, new, entry("alice", 2), version=1, successor_until=FOREVER, limit=0, token=token)
    assert await live(store, old, new) == []
