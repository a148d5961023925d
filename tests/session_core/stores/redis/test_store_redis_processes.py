"""Guarantees of the Redis store that only real processes can break, on one server and on a cluster."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Coroutine
from multiprocessing.connection import Connection

import pytest

from session_core.errors import SessionConflictError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis.store import RedisStore
from tests.support.child_process import end_with_parent
from tests.support.redis_servers import RedisCluster, RedisServer

pytestmark = pytest.mark.anyio
FOREVER = 2**41
ROUNDS = 6
LOGINS = 10
"""Concurrent calls of each of two processes."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "redis.asyncio.connection"])


def name(*parts: object, tag: str = "tag") -> str:
    """A session key that another process can also compute."""
    return session_key("-".join(map(str, parts)).ljust(43, "_") + tag)


def _tag(number: int) -> str:
    return f"t{number:02}"


async def _increment(store: RedisStore, talk: Connection, argument: str) -> None:
    done = 0
    while done < int(argument):
        stored = await store.load(name("counter"))
        assert stored is not None
        new = Entry(b"%d %d %d" % (int(stored.entry.data.split()[0]) + 1, os.getpid(), done), FOREVER, "user")
        try:
            await store.replace(name("counter"), new, version=stored.version)
        except SessionConflictError:
            continue
        done += 1
    talk.send(done)


async def _log_in(store: RedisStore, talk: Connection, argument: str) -> None:
    """Half of the logins start a session, half move an anonymous one."""
    for turn in range(ROUNDS):
        calls: list[Coroutine[object, object, object]] = []
        for number in range(LOGINS):
            place = int(argument) * LOGINS + number
            key, entry = name(turn, place, tag=_tag(place)), Entry(b"", FOREVER, f"user{turn}", "op", place)
            if number % 2:
                anonymous = name("anonymous", turn, place, tag=_tag(place))
                await store.create(anonymous, Entry(b"", FOREVER))
                calls.append(store.rotate(anonymous, key, entry, version=1, successor_until=FOREVER, limit=3))
            else:
                calls.append(store.create(key, entry, limit=3))
        talk.send(None)
        talk.recv()
        talk.send(await asyncio.gather(*calls))


async def _rotate(store: RedisStore, talk: Connection, key: str) -> None:
    """Rotate until killed; print each new key before its use."""
    while True:
        new = session_key(new_session_id(after=key))
        talk.send(new)
        await store.rotate(key, new, Entry(b"", FOREVER, "user", "op"), version=1, successor_until=FOREVER, limit=2)
        key = new


_WORK = {"increment": _increment, "log_in": _log_in, "rotate": _rotate}


def _main(url: str, work: str, argument: str, talk: Connection) -> None:
    end_with_parent()

    async def run() -> None:
        store = RedisStore(url, timeout=60)
        await store.open()
        await _WORK[work](store, talk, argument)
        await store.close()

    asyncio.run(run())


def begin(url: str, work: str, argument: str) -> tuple[int, Connection]:
    """Start a process; return its id and a connection to it."""
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=_main, args=(url, work, argument, theirs), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    return process.pid, ours


@pytest.fixture(params=["valkey", "valkey_cluster"])
def url(request: pytest.FixtureRequest) -> str:
    server = request.getfixturevalue(request.param)
    assert isinstance(server, RedisServer | RedisCluster)
    return server.url


async def test_no_increment_of_several_processes_is_lost(url: str) -> None:
    store = RedisStore(url)
    await store.open()
    await store.create(name("counter"), Entry(b"0", FOREVER, "user"))
    talks = [begin(url, "increment", "100")[1] for _ in range(3)]
    assert [await asyncio.to_thread(talk.recv) for talk in talks] == [100] * 3
    stored = await store.load(name("counter"))
    assert stored is not None
    assert (stored.entry.data.split()[0], stored.version) == (b"300", 301)
    await store.close()


async def test_twenty_logins_in_two_processes_never_exceed_the_limit(url: str) -> None:
    """An ended session never returns, so sessions seen in two consecutive polls were live at the same time."""
    store = RedisStore(url)
    await store.open()
    talks = [begin(url, "log_in", str(number))[1] for number in range(2)]
    seen: list[int] = []
    for turn in range(ROUNDS):
        keys = [name(turn, place, tag=_tag(place)) for place in range(2 * LOGINS)]
        records = [store._layout.record(key) for key in keys]
        for talk in talks:
            await asyncio.to_thread(talk.recv)
        waiting = asyncio.gather(*(asyncio.to_thread(talk.recv) for talk in talks))
        for talk in talks:
            talk.send(None)
        before: list[bool] = [False] * len(keys)
        looks_afterwards = 0
        while looks_afterwards < 2:
            looks_afterwards += waiting.done()
            # 128 and above: a record, not a reservation.
            live = [bool(value) and value[0] >= 128 for value in await store._link.read(records)]
            seen.append(sum(was and is_live for was, is_live in zip(before, live, strict=True)))
            before = live
        ended = [key for results in await waiting for evicted in results for key in evicted]
        alive = [stored.key for stored in await store.find(SessionIndex(user=f"user{turn}"))]
        assert len(alive) == 3
        assert sorted([*alive, *ended]) == sorted(keys)
    assert max(seen) == 3
    assert len(seen) > ROUNDS
    await store.close()


async def test_a_kill_during_rotation_leaves_exactly_one_key(url: str) -> None:
    """At arbitrary moments: when the parent has read a number of keys."""
    store = RedisStore(url)
    await store.open()
    first = alive = session_key(new_session_id())
    await store.create(alive, Entry(b"", FOREVER, "user", "op"))
    for kill in range(12):
        pid, talk = begin(url, "rotate", alive)
        keys = [alive]
        while len(keys) < 3 + kill % 7:
            keys.append(await asyncio.to_thread(talk.recv))
        os.kill(pid, signal.SIGKILL)
        try:
            while True:
                keys.append(await asyncio.to_thread(talk.recv))
        except EOFError:
            pass
        live = [key for key in keys if await store.load(key) is not None]
        assert len(live) == 1
        alive = live[0]
        assert [stored.key for stored in await store.find(SessionIndex(user="user"))] == live
        assert [stored.key for stored in await store.find(SessionIndex(op_session="op"))] == live
    assert await store.delete(first) == (alive,)
    assert [stored async for stored in store.scan()] == []
    await store.close()
