"""Faults of a Redis server and its connection: each is an outage in time, no write is lost or repeated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from session_core.errors import SessionConflictError, StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.redis.store import RedisStore
from tests.session_core.stores.redis.redis_faults import CuttingProxy, answering
from tests.support.opened_store import opened_store
from tests.support.redis_servers import RedisServer, needed_valkey, running
from tests.support.stopwatch import stopwatch

pytestmark = pytest.mark.anyio
FOREVER = 2**41
KEY = session_key(new_session_id())
NEXT = session_key(new_session_id(after=KEY))
TOKEN = b"8 bytes!"


def entry(data: bytes = b"data", user: str | None = "user", rank: int = 0) -> Entry:
    return Entry(data, FOREVER, user, "op", rank)


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, **options)  # type: ignore[arg-type]
    async with opened_store(store):
        yield store


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server for one test that keeps its data across restarts."""
    with running(needed_valkey(), "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


async def until_back(store: RedisStore) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await store.ping()
            except StoreUnavailableError:
                await asyncio.sleep(0.01)
            else:
                return


class TestConnection:
    async def test_all_requests_share_one_connection(self, valkey: RedisServer) -> None:
        async with opened(valkey.url) as store:
            await asyncio.gather(*(store.create(str(number), entry()) for number in range(200)))
            assert len(await store.find(SessionIndex(user="user"))) == 200
            clients = str(valkey.admin("CLIENT", "LIST"))
            assert clients.count("cmd=") == 2  # plus the one of this query

    async def test_cancelled_callers_do_not_shift_replies(self, valkey: RedisServer) -> None:
        async with opened(valkey.url) as store:
            await asyncio.gather(*(store.create(str(number), entry(str(number).encode())) for number in range(50)))
            tasks = [asyncio.create_task(store.load(str(number % 50))) for number in range(300)]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            loaded = await asyncio.gather(*tasks, return_exceptions=True)
            for number, stored in enumerate(loaded):
                if number % 3:
                    assert getattr(stored, "key", None) == str(number % 50)

    async def test_a_closed_store_is_an_outage(self, valkey: RedisServer) -> None:
        store = RedisStore(valkey.url)
        with pytest.raises(StoreUnavailableError):
            await store.load(KEY)
        await store.open()
        await store.close()
        with pytest.raises(StoreUnavailableError):
            await store.load(KEY)

    @pytest.mark.parametrize("how", [("CLIENT", "KILL", "TYPE", "normal"), ("SCRIPT", "FLUSH")], ids=["kill", "flush"])
    async def test_increments_survive_killed_connections_and_flushed_scripts(
        self, valkey: RedisServer, how: tuple[str, ...]
    ) -> None:
        """Every increment is applied exactly once."""
        async with opened(valkey.url) as store:
            await store.create(KEY, entry(b"0.start"))
            unknown = 0

            async def increment(name: str) -> None:
                nonlocal unknown
                while True:
                    try:
                        stored = await store.load(KEY)
                    except StoreUnavailableError:
                        continue  # killed again while connecting
                    assert stored is not None
                    number = int(stored.entry.data.split(b".")[0])
                    try:
                        await store.replace(KEY, entry(b"%d.%b" % (number + 1, name.encode())), version=stored.version)
                    except SessionConflictError:
                        continue
                    except StoreUnavailableError:
                        unknown += 1
                    return

            async def disturb() -> None:
                for _ in range(20):
                    await asyncio.to_thread(valkey.admin, *how)

            disturbance = asyncio.create_task(disturb())
            for turn in range(40):
                await asyncio.gather(*(increment(f"{turn}-{number}") for number in range(5)))
            await disturbance
            stored = await store.load(KEY)
            assert stored is not None
            assert 200 - unknown <= int(stored.entry.data.split(b".")[0]) <= 200
            assert unknown == 0 or how[0] == "CLIENT"
            assert stored.version == int(stored.entry.data.split(b".")[0]) + 1


class TestUncertainWrites:
    """The server ran the command, and the connection was lost before the reply."""

    @pytest.fixture
    async def proxy(self, valkey: RedisServer) -> AsyncIterator[CuttingProxy]:
        async with CuttingProxy(valkey.port).running() as proxy:
            yield proxy

    @pytest.fixture
    async def cut_off(self, proxy: CuttingProxy) -> AsyncIterator[RedisStore]:
        async with opened(f"redis://127.0.0.1:{proxy.port}") as store:
            yield store

    async def test_a_replace_is_applied_once(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        await cut_off.create(KEY, entry())
        proxy.cut_after(b"mine")
        assert await cut_off.replace(KEY, entry(b"mine"), version=1) == 2
        stored = await cut_off.load(KEY)
        assert stored is not None
        assert (stored.version, stored.entry.data) == (2, b"mine")

    async def test_a_replace_that_was_extended_meanwhile_is_recognized(
        self, cut_off: RedisStore, proxy: CuttingProxy, valkey: RedisServer
    ) -> None:
        await cut_off.create(KEY, Entry(b"", FOREVER))
        async with opened(valkey.url) as other:
            proxy.cut_after(b"mine", lambda: other.touch(KEY, FOREVER + 5))
            assert await cut_off.replace(KEY, Entry(b"mine", FOREVER), version=1) == 2

    async def test_a_replace_overwritten_by_others_is_not_reported_as_a_conflict(
        self, cut_off: RedisStore, proxy: CuttingProxy, valkey: RedisServer
    ) -> None:
        """A conflict would be retried, and the change may have been applied."""
        await cut_off.create(KEY, entry())
        async with opened(valkey.url) as other:
            proxy.cut_after(b"mine", lambda: other.replace(KEY, entry(b"theirs"), version=2))
            with pytest.raises(StoreUnavailableError):
                await cut_off.replace(KEY, entry(b"mine"), version=1)

    async def test_a_refused_replace_is_still_a_conflict(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        await cut_off.create(KEY, entry())
        proxy.cut_after(b"mine")
        with pytest.raises(SessionConflictError):
            await cut_off.replace(KEY, entry(b"mine"), version=5)

    async def test_a_replace_after_another_write_is_not_mistaken_for_applied(
        self, cut_off: RedisStore, proxy: CuttingProxy, valkey: RedisServer
    ) -> None:
        """The version is the one that this write would have made."""
        await cut_off.create(KEY, entry())
        async with opened(valkey.url) as other:
            await other.replace(KEY, entry(b"theirs"), version=1)
            proxy.cut_after(b"mine")
            with pytest.raises(StoreUnavailableError):
                await cut_off.replace(KEY, entry(b"mine"), version=1)
            stored = await other.load(KEY)
        assert stored is not None
        assert stored.entry.data == b"theirs"

    async def test_a_create_is_applied_once(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        proxy.cut_after(b"mine")
        assert await cut_off.create(KEY, entry(b"mine"), limit=2) == ()
        assert [stored.key for stored in await cut_off.find(SessionIndex(user="user"))] == [KEY]
        with pytest.raises(SessionConflictError):
            await cut_off.create(KEY, entry(b"mine"))

    async def test_a_rotation_is_applied_once(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        await cut_off.create(KEY, entry())
        proxy.cut_after(b"mine")
        assert await cut_off.rotate(KEY, NEXT, entry(b"mine"), version=1, successor_until=FOREVER) == ()
        assert await cut_off.load(KEY) is None
        assert await cut_off.delete(KEY) == (NEXT,)

    async def test_a_rotation_refused_twice_changes_nothing(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        await cut_off.create(KEY, entry())
        proxy.cut_after(b"mine")
        with pytest.raises(SessionConflictError):
            await cut_off.rotate(KEY, NEXT, entry(b"mine"), version=5, successor_until=FOREVER)
        await cut_off.create(NEXT, entry(b"theirs"))
        proxy.cut_after(b"mine")
        with pytest.raises(SessionConflictError):
            await cut_off.rotate(KEY, NEXT, entry(b"mine"), version=1, successor_until=FOREVER)
        assert [await cut_off.load(key) is not None for key in (KEY, NEXT)] == [True, True]

    async def test_a_reservation_is_made_once(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        """It replaces neither the reservation of another login nor a session."""
        await cut_off.create(NEXT, entry())
        with pytest.raises(SessionConflictError):
            await cut_off._stepped_logins._reserve([NEXT], entry(), TOKEN, version=0)
        proxy.cut_after(TOKEN)
        await cut_off._stepped_logins._reserve([KEY], entry(), TOKEN, version=0)
        proxy.cut_after(b"another!")
        with pytest.raises(SessionConflictError):
            await cut_off._stepped_logins._reserve([KEY], entry(), b"another!", version=0)

    @pytest.mark.parametrize("moves", [False, True])
    async def test_the_last_step_of_a_login_in_steps_is_applied_once(
        self, moves: bool, cut_off: RedisStore, proxy: CuttingProxy
    ) -> None:
        """Without its reservation it creates no session, and it does not mistake another login's session for its own."""
        key, before = (NEXT, [NEXT, KEY]) if moves else (KEY, [KEY])
        if moves:
            await cut_off.create(KEY, entry())
        steps = cut_off._steps

        async def last_step(data: bytes) -> object:
            if moves:
                return await steps.rotate(KEY, NEXT, entry(data), version=1, successor_until=FOREVER, limit=0, token=TOKEN)
            return await steps.create(KEY, entry(data), 0, TOKEN)

        with pytest.raises(StoreUnavailableError):
            await last_step(b"mine")
        await cut_off._stepped_logins._reserve(before, entry(), TOKEN, version=1)
        proxy.cut_after(b"mine")
        assert await last_step(b"mine") == ()
        stored = await cut_off.load(key)
        assert stored is not None
        assert stored.entry.data == b"mine"
        if not moves:
            with pytest.raises(StoreUnavailableError):
                await last_step(b"mine")
            proxy.cut_after(b"others")
            with pytest.raises(StoreUnavailableError):
                await last_step(b"others")
            assert await cut_off.load(key) == stored

    async def test_a_claim_is_won_by_its_first_writer(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        proxy.cut_after(b"EVALSHA")
        assert await cut_off.claim("name", FOREVER) is True
        assert await cut_off.claim("name", FOREVER) is False

    async def test_reads_touches_and_deletes_can_be_repeated(self, cut_off: RedisStore, proxy: CuttingProxy) -> None:
        await cut_off.create(KEY, entry())
        proxy.cut_after(b"GET")
        assert await cut_off.load(KEY) is not None
        proxy.cut_after(b"EVALSHA")
        assert await cut_off.touch(KEY, FOREVER + 1) is True
        proxy.cut_after(b"EVALSHA")
        await cut_off.delete(KEY)
        assert await cut_off.load(KEY) is None


class TestServer:
    async def test_the_application_survives_a_restart_of_the_server(self, own_server: RedisServer) -> None:
        """Outages are reported at once; afterwards everything works as before."""
        async with opened(own_server.url) as store:
            await store.create(KEY, entry(b"kept"))
            own_server.kill()
            began = time.monotonic()
            for call in (store.load(KEY), store.replace(KEY, entry(), version=1), store.ping()):
                with pytest.raises(StoreUnavailableError):
                    await call
            assert time.monotonic() - began < 30  # half of the store's timeout
            own_server.start()
            stored = await store.load(KEY)
            assert stored is not None
            assert stored.entry.data == b"kept"
            assert await store.replace(KEY, entry(b"new"), version=1) == 2

    async def test_a_server_that_lost_its_data_has_no_sessions(self, own_server: RedisServer) -> None:
        """No user is logged in, and no request fails."""
        async with opened(own_server.url) as store:
            await store.create(KEY, entry())
            own_server.admin("FLUSHALL")
            own_server.kill()
            own_server.start()
            assert await store.load(KEY) is None
            assert await store.touch(KEY, FOREVER + 1) is False
            assert await store.delete(KEY) == ()
            assert list(await store.find(SessionIndex(user="user"))) == []

    async def test_a_frozen_server_is_an_outage_in_time(self, own_server: RedisServer) -> None:
        async with opened(own_server.url, timeout=1) as store:
            await store.create(KEY, entry(b"kept"))
            own_server.freeze()
            try:
                for _ in range(2):
                    calls = [store.load(KEY), store.replace(KEY, entry(b"late"), version=1), store.touch(KEY, FOREVER + 9)]
                    async with stopwatch() as watch:
                        results = await asyncio.gather(*calls, return_exceptions=True)
                        assert watch.seconds < 2.5
                    assert all(isinstance(result, StoreUnavailableError) for result in results)
            finally:
                own_server.thaw()
            await until_back(store)
            stored = await store.load(KEY)
            assert stored is not None
            # Sent commands may have been applied once when the server resumed.
            assert (stored.version, stored.entry.data) in [(1, b"kept"), (2, b"late")]

    async def test_full_memory_is_an_outage_for_writes_only(self, own_server: RedisServer) -> None:
        async with opened(own_server.url) as store:
            await store.create(KEY, entry(b"kept"))
            await store.create(NEXT, entry(b"other"))
            own_server.admin("CONFIG", "SET", "maxmemory-policy", "noeviction")
            own_server.admin("CONFIG", "SET", "maxmemory", 1)
            third = session_key(new_session_id(after=KEY))
            for call in (
                store.create(third, entry(), limit=1),
                store.replace(KEY, entry(b"new"), version=1),
                store.rotate(KEY, third, entry(), version=1, successor_until=FOREVER, limit=1),
                store.claim("name", FOREVER),
                store.ping(),
            ):
                with pytest.raises(StoreUnavailableError, match="OOM"):
                    await call
            stored = await store.load(KEY)
            assert stored is not None
            assert stored.entry.data == b"kept"
            assert await store.delete(NEXT) == (NEXT,)
            assert [found.key for found in await store.find(SessionIndex(user="user"))] == [KEY]
            assert await store.delete_by(SessionIndex(user="unknown")) == ()
            own_server.admin("CONFIG", "SET", "maxmemory", 0)
            assert await store.replace(KEY, entry(b"new"), version=1) == 2

    async def test_a_primary_that_became_a_replica_is_an_outage(self, own_server: RedisServer) -> None:
        async with opened(own_server.url) as store:
            await store.create(KEY, entry(b"kept"))
            own_server.admin("REPLICAOF", "127.0.0.1", 1)
            for call in (store.replace(KEY, entry(), version=1), store.claim("name", FOREVER), store.ping()):
                with pytest.raises(StoreUnavailableError, match="READONLY"):
                    await call
            own_server.admin("REPLICAOF", "NO", "ONE")
            assert await store.replace(KEY, entry(), version=1) == 2

    @pytest.mark.parametrize(
        "reply",
        [
            b"-LOADING Redis is loading the dataset in memory\r\n",
            b"-MASTERDOWN Link with MASTER is down\r\n",
            b"-NOAUTH Authentication required.\r\n",
            b"-NOPERM this user has no permissions to access 'sc:secret'\r\n",
            b"-BUSY Redis is busy running a script\r\n",
            b"-MISCONF Errors writing to the AOF file: secret\r\n",
            b"-MOVED 5 127.0.0.1:1\r\n",
            b"-ERR unknown command, with args beginning with: 'secret'\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ],
    )
    async def test_any_other_server_error_is_an_outage(self, reply: bytes) -> None:
        """Its code is shown, but not its text, which quotes names and values."""
        async with answering(b"+OK\r\n") as port, answering(reply) as other:
            store = RedisStore(f"redis://127.0.0.1:{port}", timeout=0.3)
            await store.open()
            store._link._endpoint._locate = RedisStore(f"redis://127.0.0.1:{other}")._link._endpoint._locate  # type: ignore[attr-defined]
            store._link._endpoint.current().close()  # type: ignore[attr-defined]
            for call in (store.load(KEY), store.claim("name", FOREVER), store.ping()):
                with pytest.raises(StoreUnavailableError) as caught:
                    await call
                assert "secret" not in str(caught.value)
            await store.close()

    async def test_wrong_passwords_are_an_outage_without_the_password(self) -> None:
        with running(needed_valkey(), password="right-secret") as server:
            async with opened(server.url) as store:
                await store.ping()
            for user in (":wrong-secret@", "unknown:wrong-secret@", ""):
                with pytest.raises(StoreUnavailableError) as caught:
                    async with opened(f"redis://{user}127.0.0.1:{server.port}") as store:
                        await store.ping()
                assert "secret" not in str(caught.value)
                assert caught.value.__suppress_context__
