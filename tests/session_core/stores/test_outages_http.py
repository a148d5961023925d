"""A browser while its store fails, on real servers: five guarantees for each engine and fault.

1. The response is 503 within the configured timeout.
2. The cookie is unchanged.
3. No user is logged out.
4. No acknowledged write is lost.
5. The outage ends with the fault, without a restart of the application.

Routes without sessions respond all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from redis.crc import key_slot

from session_core.ids import session_key
from session_core.stores.redis.store import RedisStore
from session_core.stores.sql.store import SqlStore
from tests.session_core.stores.redis.redis_faults import CuttingProxy
from tests.support.mariadb_server import MariadbServer, mariadb_server
from tests.support.postgres_server import PostgresServer, postgres_server
from tests.support.redis_servers import RedisCluster, RedisServer, cluster, needed_valkey, replication, running
from tests.support.sessions import client_of, cookie_of, make_app
from tests.support.stopwatch import stopwatch

pytestmark = pytest.mark.anyio

TIMEOUT = 1.5
"""Seconds within which the application must respond, with a margin for a busy machine."""
PATIENCE = 5.0
CALM = 20.0
"""The same when no request may fail, which covers slow machines."""
LAST_SLOT_OF_THE_FIRST = 16384 // 3 - 1
"""Of three primaries."""
Server = PostgresServer | MariadbServer | RedisServer


class Ride:
    """A logged-in browser that counts its visits and records acknowledgements."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.acknowledged = 0
        self.unknown = 0
        self.cookie = ""

    async def begin(self) -> None:
        async with asyncio.timeout(60):  # the store's timeout is short, and the machine may be busy
            while (answer := await self.client.post("/login/alice")).status_code == 503:
                self.client.cookies.clear()
        assert answer.status_code == 201
        self.cookie = cookie_of(self.client) or ""
        assert self.cookie
        await self.until_acknowledged(3)

    async def visit(self, number: int = 1) -> None:
        for _ in range(number):
            answer = await self._timed("POST", "/visit")
            self.acknowledged += answer.status_code == 201
            self.unknown += answer.status_code == 503

    @property
    def key(self) -> str:
        return session_key(unquote(self.cookie).removeprefix("s:").partition(".")[0])

    async def until_acknowledged(self, number: int) -> None:
        """Visit until this many more were acknowledged."""
        until = self.acknowledged + number
        async with asyncio.timeout(60):
            while self.acknowledged < until:
                await self.visit()

    async def assert_outage(self) -> None:
        """Every request that needs the session gets 503 in time; the others are not affected."""
        paths = ("/visit", "/logout", "/regenerate", "/login/alice")
        for method, path in (("GET", "/read"), *(("POST", path) for path in paths), ("GET", "/read")):
            answer = await self._timed(method, path)
            self.unknown += path == "/visit"
            assert answer.status_code == 503
        assert (await self._timed("GET", "/public")).status_code == 200

    async def assert_recovery(self) -> None:
        """Wait until the session is back, with the same user and every acknowledged visit."""
        async with asyncio.timeout(60):
            while (answer := await self._timed("GET", "/read")).status_code == 503:  # noqa: ASYNC110 - waits for a server
                await asyncio.sleep(0.05)
        assert answer.status_code == 200
        seen = answer.json()
        assert seen["subject"] == "alice"
        assert self.acknowledged <= seen["data"]["visits"] <= self.acknowledged + self.unknown
        self.acknowledged, self.unknown = seen["data"]["visits"], 0
        await self.until_acknowledged(2)
        assert self.unknown <= 2, "the outage has not ended"

    async def _timed(self, method: str, path: str) -> httpx.Response:
        async with stopwatch() as watch:
            answer = await self.client.request(method, path)
            assert watch.seconds < TIMEOUT + PATIENCE
        assert "set-cookie" not in answer.headers
        assert cookie_of(self.client) == self.cookie
        return answer


def store_of(server: Server | RedisCluster, url: str | None = None, timeout: float = TIMEOUT) -> SqlStore | RedisStore:
    if isinstance(server, PostgresServer | MariadbServer):
        return SqlStore(url or server.url, timeout=timeout)
    return RedisStore(url or server.url, timeout=timeout)


def url_through(server: Server, proxy: CuttingProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}" if isinstance(server, RedisServer) else server.url_through(proxy.port)


async def begin(stack: AsyncExitStack, store: Any, timeout: float = TIMEOUT) -> Ride:  # noqa: ASYNC109 - the store's
    app = make_app(store=store, store_timeout=timeout)
    await stack.enter_async_context(app.lifespan())
    ride = Ride(await stack.enter_async_context(client_of(app)))
    await ride.begin()
    return ride


@contextmanager
def own_server(kind: str) -> Iterator[Server]:
    with ExitStack() as stack:
        if kind == "postgres":
            yield stack.enter_context(postgres_server())
        elif kind == "mariadb":
            yield stack.enter_context(mariadb_server())
        else:
            yield stack.enter_context(running(needed_valkey(), "--appendonly", "yes", "--appendfsync", "always"))


@pytest.fixture(params=["postgres", "mariadb", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with own_server(request.param) as server:
        yield server


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_killed_server_is_an_outage_until_it_restarts(server: Server, stack: AsyncExitStack) -> None:
    ride = await begin(stack, store_of(server))
    server.kill()
    await ride.assert_outage()
    await asyncio.to_thread(server.start)
    await ride.assert_recovery()


async def test_a_frozen_server_is_an_outage_until_it_continues(server: Server, stack: AsyncExitStack) -> None:
    ride = await begin(stack, store_of(server))
    server.freeze()
    try:
        await ride.assert_outage()
    finally:
        server.thaw()
    await ride.assert_recovery()


async def test_a_slow_server_is_an_outage_until_it_is_fast_again(server: Server, stack: AsyncExitStack) -> None:
    """Slower than the timeout, so that its responses arrive too late."""
    proxy = await stack.enter_async_context(CuttingProxy(server.port).running())
    ride = await begin(stack, store_of(server, url_through(server, proxy)))
    proxy.delay = 2 * TIMEOUT
    await ride.assert_outage()
    proxy.delay = 0.0
    await ride.assert_recovery()


async def test_a_connection_reset_after_the_command_was_sent(server: Server, stack: AsyncExitStack) -> None:
    """No request fails and nothing is counted twice: the store determines the outcome."""
    proxy = await stack.enter_async_context(CuttingProxy(server.port).running())
    ride = await begin(stack, store_of(server, url_through(server, proxy), CALM), CALM)
    for number in range(4, 10):
        proxy.cut_after(b"visits")
        await ride.visit()
        assert ride.acknowledged == number
        assert not proxy.waiting
    await ride.assert_recovery()


async def administrator(ride: Ride, disturb: Callable[[], object]) -> None:
    for _ in range(10):
        await asyncio.to_thread(disturb)
        await ride.visit()


async def test_a_flushed_script_cache_disturbs_no_request(stack: AsyncExitStack) -> None:
    with own_server("valkey") as server:
        assert isinstance(server, RedisServer)
        ride = await begin(stack, store_of(server, timeout=CALM), CALM)
        await administrator(ride, lambda: server.admin("SCRIPT", "FLUSH"))
        assert ride.unknown == 0
        await ride.assert_recovery()


async def test_full_memory_refuses_writes_and_keeps_users_logged_in(stack: AsyncExitStack) -> None:
    """An outage for writes only: the user stays logged in and sees the page."""
    with own_server("valkey") as server:
        assert isinstance(server, RedisServer)
        ride = await begin(stack, store_of(server, timeout=CALM), CALM)
        server.admin("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.admin("CONFIG", "SET", "maxmemory", 1)
        await ride.visit(3)
        assert (ride.acknowledged, ride.unknown) == (3, 3)
        assert (await ride.client.get("/read")).json()["subject"] == "alice"
        server.admin("CONFIG", "SET", "maxmemory", 0)
        ride.unknown = 0  # refused, not unknown
        await ride.assert_recovery()


async def test_a_server_that_lost_its_data_logs_users_out_without_an_error(stack: AsyncExitStack) -> None:
    """Killed and restarted without data: its sessions have ended without an error, and the cookie opens none."""
    with running(needed_valkey()) as server:
        ride = await begin(stack, store_of(server))
        server.kill()
        await ride.assert_outage()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(60):
            while (answer := await ride.client.get("/read")).status_code == 503:  # noqa: ASYNC110 - waits for a server
                await asyncio.sleep(0.05)
        assert (answer.status_code, answer.json()["subject"], answer.json()["exists"]) == (200, None, False)
        assert cookie_of(ride.client) == ride.cookie
        await ride.client.post("/login/alice")
        assert cookie_of(ride.client) != ride.cookie


async def test_a_killed_primary_of_a_cluster_logs_no_user_out(stack: AsyncExitStack) -> None:
    """Under load. No user is logged out; sessions on the other primaries lose nothing.

    Replication is asynchronous: sessions on the killed primary keep the writes that its replica had acknowledged.
    """
    with cluster(needed_valkey()) as servers:
        store = store_of(servers)
        assert isinstance(store, RedisStore)
        app = make_app(store=store, store_timeout=TIMEOUT)
        await stack.enter_async_context(app.lifespan())
        rides: list[Ride] = []
        on_the_killed_primary: list[Ride] = []
        while len(on_the_killed_primary) < 3 or len(rides) < len(on_the_killed_primary) + 5:
            rides.append(ride := Ride(await stack.enter_async_context(client_of(app))))
            await ride.begin()
            if key_slot(store._layout.record(ride.key)) <= LAST_SLOT_OF_THE_FIRST:
                on_the_killed_primary.append(ride)
        await until(lambda: asyncio.to_thread(replicated, servers))
        load = asyncio.gather(*(ride.visit(15) for ride in rides))
        await until(lambda: asyncio.sleep(0, any(ride.acknowledged > 4 for ride in rides)))
        await asyncio.to_thread(servers.expect_failover, 0)
        servers.primaries[0].kill()
        await load
        for ride in on_the_killed_primary:
            ride.unknown += ride.acknowledged - 3
            ride.acknowledged = 3
        for ride in rides:
            await ride.assert_recovery()


def replicated(servers: RedisCluster) -> bool:
    """Whether each replica has everything that its primary had at the start of the call."""
    return all(0 < written <= followed for written, followed in map(replication, servers.primaries))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - waits for servers and other tasks
            await asyncio.sleep(0.01)
