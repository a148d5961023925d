"""Commands sent to a frozen server have no effect when it resumes after the caller has given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import post
from redis.crc import key_slot

from session_core import Session, SessionHandle
from session_core.errors import StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis import scripts
from session_core.stores.redis.connection import ServerClock
from session_core.stores.redis.store import RedisStore
from tests.session_core.stores.redis.stepped_commands import Stepped
from tests.support.opened_store import opened_store
from tests.support.redis_servers import RedisCluster, RedisServer, cluster, needed_redis, needed_valkey, running, statistics
from tests.support.sessions import ALICE, BOB, AppSession, client_of, cookie_of, make_app
from tests.support.stopwatch import stopwatch

pytestmark = pytest.mark.anyio
FOREVER = 2**41
SECONDS = 0.6
"""Timeout of a call in seconds."""


@asynccontextmanager
async def opened(url: str, seconds: float = 60) -> AsyncIterator[RedisStore]:
    async with opened_store(RedisStore(url, timeout=seconds)) as store:
        yield store


@asynccontextmanager
async def store_with_short_timeout(url: str, seconds: float = SECONDS) -> AsyncIterator[RedisStore]:
    """A store with a short timeout. It is connected to every server before the block begins, however long that takes."""
    store = RedisStore(url, timeout=seconds)
    try:
        async with asyncio.timeout(60):
            while True:
                with suppress(StoreUnavailableError):
                    await store.open()
                    await store.ping()
                    break
        yield store
    finally:
        await store.close()


async def answered(browser: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    """The first response that is not 503: with its short timeout the application may answer 503 on a busy machine."""
    async with asyncio.timeout(60):
        while (answer := await browser.request(method, path)).status_code == 503:
            pass
    return answer


@pytest.fixture(params=["valkey", "redis", "cluster"])
def servers(request: pytest.FixtureRequest) -> Iterator[list[RedisServer]]:
    """The servers of one test: one, or the nodes of a cluster."""
    if request.param == "cluster":
        with cluster(needed_valkey(), primaries=3, replicas=False) as nodes:
            yield list(nodes.primaries)
    else:
        with running(needed_valkey() if request.param == "valkey" else needed_redis()) as server:
            yield [server]


def url_of(servers: list[RedisServer]) -> str:
    return servers[0].url if len(servers) == 1 else RedisCluster(servers, len(servers)).url


def content(servers: list[RedisServer]) -> dict[bytes, object]:
    """All contents of the servers, except those of `ping`."""
    found: dict[bytes, object] = {}
    for server in servers:
        names = server.admin("KEYS", "*")
        assert isinstance(names, list)
        for name in names:
            if b"ping" not in name:
                kind = server.admin("TYPE", name)
                found[name] = server.admin("ZRANGE", name, 0, -1) if kind == b"zset" else server.admin("GET", name)
    return found


def refused_as_late(servers: list[RedisServer]) -> int:
    stats = [statistics(server, "errorstats") for server in servers]
    return int(sum(each.get("errorstat_LATE", {}).get("count", 0) for each in stats))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - waits for servers
            await asyncio.sleep(0.02)


def entry(user: str | None = "user", data: bytes = b"") -> Entry:
    return Entry(data, FOREVER, user, None if user is None else f"op-{user}", 0)


def new_key(after: str | None = None) -> str:
    return session_key(new_session_id(after=after))


CALLS: dict[str, Callable[[RedisStore, str], Awaitable[object]]] = {
    "create": lambda store, _: store.create(new_key(), entry(None)),
    "log in": lambda store, _: store.create(new_key(), entry(), limit=1),
    "replace": lambda store, key: store.replace(key, entry(data=b"late"), version=1),
    "touch": lambda store, key: store.touch(key, FOREVER + 1),
    "extend the indexes": lambda store, key: store.touch(key, FOREVER + 10**8),
    "rotate": lambda store, key: store.rotate(key, new_key(key), entry(), version=1, successor_until=0),
    "rotate at the limit": lambda store, key: store.rotate(
        key, new_key(key), entry(), version=1, successor_until=FOREVER, limit=1
    ),
    "delete": lambda store, key: store.delete(key),
    "delete by user": lambda store, _: store.delete_by(SessionIndex(user="user")),
    "delete by OP session": lambda store, _: store.delete_by(SessionIndex(op_session="op-user")),
    "claim": lambda store, key: store.claim(key, FOREVER),
}


def load_scripts(servers: Sequence[RedisServer]) -> None:
    """A script that the server does not know yet does not run, whether late or not."""
    for server in servers:
        for script in vars(scripts).values():
            if isinstance(script, scripts.Script):
                server.admin("SCRIPT", "LOAD", script.text)


async def test_late_commands_have_no_effect(servers: list[RedisServer]) -> None:
    """Every modifying call while all servers are frozen; they resume after the callers have given up."""
    load_scripts(servers)
    async with opened(url_of(servers)) as store, store_with_short_timeout(url_of(servers)) as late:
        keys = {name: new_key() for name in CALLS}
        for key in keys.values():
            await store.create(key, entry())
        before = content(servers)
        for server in servers:
            server.freeze()
        try:
            async with stopwatch() as watch:
                results = await asyncio.gather(*(call(late, keys[name]) for name, call in CALLS.items()), return_exceptions=True)
                assert watch.seconds < 3
            assert [type(result) for result in results] == [StoreUnavailableError] * len(CALLS)
        finally:
            for server in servers:
                server.thaw()
        # They have run by now and were refused; in a cluster some calls start with a read.
        await until(lambda: refused_as_late(servers) >= (len(CALLS) if len(servers) == 1 else len(CALLS) - 2))
        assert content(servers) == before
        for name, key in keys.items():
            assert await store.load(key) is not None, name
        assert await store.claim(keys["claim"], FOREVER) is True


async def test_a_stall_that_ends_in_time_is_no_outage(servers: list[RedisServer]) -> None:
    async with opened(url_of(servers)) as store:
        await store.create(key := new_key(), entry())
        for server in servers:
            server.freeze()
        call = asyncio.create_task(store.replace(key, entry(data=b"new"), version=1))
        await asyncio.sleep(0.2)
        for server in servers:
            server.thaw()
        assert await call == 2


async def test_a_login_whose_node_freezes_before_its_last_step_never_starts(valkey_cluster: RedisCluster) -> None:
    """It does not count either: the next login at the limit ends one session, not two."""
    async with AsyncExitStack() as stack:
        load_scripts(valkey_cluster.primaries)
        plain = await stack.enter_async_context(opened(valkey_cluster.url))
        stepped = await stack.enter_async_context(store_with_short_timeout(valkey_cluster.url, seconds=4 * SECONDS))
        stepped._stepped_logins._hold = 4 * SECONDS
        user, key = new_key(), new_key()
        others = [await begin(plain, user, rank) for rank in (1, 2)]
        call = Stepped(stepped, stepped.create(key, Entry(b"", FOREVER, user, None, 3), limit=3))
        for _ in range(2):
            await call.step()  # reserved, and in the index
        frozen = node_of(valkey_cluster, plain._layout.record(key))
        before = refused_as_late([frozen])
        frozen.freeze()
        try:
            await call.to_its_end()
            assert isinstance(call.task.exception(), StoreUnavailableError)
        finally:
            frozen.thaw()
        await until(lambda: refused_as_late([frozen]) > before)
        assert await plain.load(key) is None
        assert frozen.admin("EXISTS", plain._layout.record(key)) == 0
        assert await plain.create(last := new_key(), Entry(b"", FOREVER, user, None, 4), limit=2) == (others[0],)
        assert sorted(stored.key for stored in await plain.find(SessionIndex(user=user))) == sorted([others[1], last])


async def test_a_login_with_too_little_time_left_ends_no_session(valkey_cluster: RedisCluster) -> None:
    """The node of the session to be ended is frozen until half of the login's time is over."""
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(opened(valkey_cluster.url))
        user, old = new_key(), new_key()
        await plain.create(old, Entry(b"", FOREVER, user, None, 1))
        frozen = node_of(valkey_cluster, plain._layout.record(old))
        key = new_key()
        while node_of(valkey_cluster, plain._layout.record(key)) is frozen:
            key = new_key()
        stepped = await stack.enter_async_context(opened(valkey_cluster.url, seconds=20))
        stepped._stepped_logins._hold = 2 * SECONDS
        call = Stepped(stepped, stepped.create(key, Entry(b"", FOREVER, user, None, 2), limit=1))
        for _ in range(4):
            await call.step()  # reserved, in the index, and both were read
        ending = asyncio.create_task(call.step())
        frozen.freeze()
        try:
            await asyncio.sleep(1.5 * SECONDS)
        finally:
            frozen.thaw()
        await ending
        await call.to_its_end()
        if not call.task.exception():  # it arrived before the freeze
            pytest.fail("the session ended before its node was frozen")
        assert await plain.load(old) is not None
        assert await plain.load(key) is None


async def begin(store: RedisStore, user: str, rank: int) -> str:
    await store.create(key := new_key(), Entry(b"", FOREVER, user, None, rank))
    return key


def node_of(servers: RedisCluster, name: bytes) -> RedisServer:
    return servers.primaries[key_slot(name) * len(servers.primaries) // 16384]


VERBS: dict[str, Callable[[SessionHandle[AppSession]], Awaitable[object]]] = {
    "update": lambda session: session.update(note="late"),
    "regenerate": lambda session: session.regenerate(),
    "destroy": lambda session: session.destroy(),
    "log in again": lambda session: session.login(ALICE),
    "log another user in": lambda session: session.login(BOB),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("seconds", [0.5, 20])
async def test_a_step_answered_with_503_is_not_applied_later(verb: str, seconds: float) -> None:
    """For the shorter of the store's own timeout and the request's."""
    with running(needed_valkey()) as server:
        has_acted = False

        @post("/act")
        async def act(session: Session[AppSession]) -> None:
            nonlocal has_acted
            has_acted = True
            server.freeze()
            await VERBS[verb](session)

        load_scripts([server])
        app = make_app(act, store=RedisStore(server.url, timeout=seconds), store_timeout=SECONDS, max_sessions_per_user=1)
        async with app.lifespan(), client_of(app) as browser:
            assert (await answered(browser, "POST", "/login/alice")).status_code == 201
            cookie, before = cookie_of(browser), (await answered(browser, "GET", "/read")).json()
            try:
                while not has_acted:
                    answer = await browser.post("/act")
            finally:
                server.thaw()
            assert answer.status_code == 503
            await until(lambda: refused_as_late([server]) > 0)
            # Until the next request the cookie may contain a second id, because the response was lost; then it is as before.
            assert (await answered(browser, "GET", "/read")).json() == before
            assert cookie_of(browser) == cookie


async def test_a_login_answered_with_503_ends_no_other_session() -> None:
    with running(needed_valkey()) as server:
        load_scripts([server])
        app = make_app(store=RedisStore(server.url), store_timeout=SECONDS, max_sessions_per_user=1)
        async with app.lifespan(), client_of(app) as browser, client_of(app) as other:
            await answered(browser, "POST", "/login/alice")
            server.freeze()
            try:
                assert (await other.post("/login/alice")).status_code == 503
            finally:
                server.thaw()
            await until(lambda: refused_as_late([server]) > 0)
            assert (await answered(browser, "GET", "/read")).json()["subject"] == "alice"


class TestClock:
    """The client's estimate of the server's clock."""

    @pytest.mark.parametrize("seconds", [-7200, -5, 5, 7200])
    async def test_a_server_whose_clock_was_changed_is_no_outage(self, valkey: RedisServer, seconds: float) -> None:
        """The test changes the estimate instead of the server's clock, by the same amount in the opposite direction."""
        async with opened(valkey.url, seconds=3) as store:  # less than the clock was set by
            await store.create(key := new_key(), entry())
            for version in (1, 2):
                clock(store)._ahead -= seconds
                assert await store.replace(key, entry(data=b"new"), version=version) == version + 1
                clock(store)._ahead -= seconds
                assert await store.claim(f"name{version}", FOREVER) is True

    async def test_a_clock_set_back_while_the_server_is_frozen_allows_no_late_command(self) -> None:
        """By more than the stall: the script sees a command from the future."""
        with running(needed_valkey()) as server:
            load_scripts([server])
            async with opened(server.url) as store, store_with_short_timeout(server.url) as late:
                await store.create(key := new_key(), entry())
                clock(late)._ahead += 3600
                server.freeze()
                with pytest.raises(StoreUnavailableError):
                    await late.replace(key, entry(data=b"late"), version=1)
                server.thaw()
                await until(lambda: refused_as_late([server]) == 1)
                stored = await store.load(key)
                assert stored is not None
                assert stored.entry.data == b""

    async def test_the_clock_is_read_again_periodically(self, valkey: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("session_core.stores.redis.connection._CLOCK_SECONDS", 0.05)
        async with opened(valkey.url) as store:
            wrong = clock(store)._ahead = clock(store)._ahead + 3600
            await until(lambda: clock(store)._ahead < wrong - 3500)
            assert clock(store)._ahead < wrong - 3500

    @given(
        ahead=st.floats(-1e9, 2e9),
        readings=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=20),
        drift=st.floats(-0.0009, 0.0009),
    )
    def test_a_deadline_is_never_estimated_too_late(
        self, ahead: float, readings: list[tuple[float, float, float]], drift: float
    ) -> None:
        """For any network delay and clock drift."""
        known, now = ServerClock(), 1000.0

        def server_time(at: float) -> float:
            return at + ahead + (at - 1000) * drift

        for pause, there, back in readings:
            now += pause
            known.learn(now, now + there + back, server_time(now + there))
            now += there + back
            earliest, latest = known.window(now, now + 2)
            assert earliest <= server_time(now) * 1000 + 1
            assert latest <= server_time(now + 2) * 1000 + 1

    def test_the_most_precise_reading_is_kept_while_plausible(self) -> None:
        known = ServerClock()
        known.learn(10, 10.001, 1010)
        known.learn(20, 23, 1022)
        assert known.window(23, 23)[0] == pytest.approx(1022_999, abs=20)
        known.learn(30, 30.001, 1020)  # it was set back
        assert known.window(31, 31)[0] == pytest.approx(1021_000, abs=20)
        known.learn(40, 40.001, 2040)  # it was set forward
        assert known.window(41, 41)[0] == pytest.approx(2041_000, abs=20)


def clock(store: RedisStore) -> Any:
    return store._link._endpoint.latest._clock  # type: ignore[attr-defined]
