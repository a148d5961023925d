"""URLs of the Redis store, and where they connect: through TLS, and through Sentinels."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.opening import open_store
from session_core.stores.redis.store import RedisStore
from session_core.stores.redis.url import parse_redis_url
from tests.session_core.stores.redis.redis_faults import certificate_for_loopback
from tests.support.ports import free_port
from tests.support.redis_servers import RedisServer, cluster, info, needed_redis, needed_valkey, running, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("redis://", [("localhost", 6379)]),
        ("redis://host", [("host", 6379)]),
        ("redis://:pass@10.0.0.1:7000/3", [("10.0.0.1", 7000)]),
        ("rediss://user:p%40ss@[::1]:7000/?ssl_check_hostname=false", [("::1", 7000)]),
        ("redis+sentinel://a,b:7000/main/2", [("a", 26379), ("b", 7000)]),
        ("redis+cluster://user:pass@a:1,b", [("a", 1), ("b", 6379)]),
        ("valkey://:pass@host/3", [("host", 6379)]),
        ("valkeys+sentinel://a/main?ssl_check_hostname=false", [("a", 26379)]),
        ("valkey+cluster://a", [("a", 6379)]),
        ("rediss://default:pass@app-kv-12345.kv.vercel-storage.com:34567", [("app-kv-12345.kv.vercel-storage.com", 34567)]),
        ("rediss://default:pass@eu1-app-12345.upstash.io:6379", [("eu1-app-12345.upstash.io", 6379)]),
        ("unix:///run/redis.sock", [("/run/redis.sock", 0)]),
        ("redis+unix://user:p%40ss@/run/my%20redis.sock?db=3", [("/run/my redis.sock", 0)]),
        ("valkey+unix:///run/valkey.sock?db=0&prefix=shop:", [("/run/valkey.sock", 0)]),
    ],
)
def test_valid_urls_are_parsed_and_their_password_is_hidden(url: str, addresses: list[tuple[str, int]]) -> None:
    target = parse_redis_url(url, timeout=2, prefix="sc:")
    assert list(target.addresses) == addresses
    assert "pass" not in repr(target)
    assert "p%40ss" not in repr(target)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:verysecret@host:99999",
        "redis://user:verysecret@host:port",
        "redis://user:verysecret@ho st",
        "redis://:verysecret@host/db",
        "redis://:verysecret@host/1/2",
        "redis://:verysecret@a,b",
        "redis://verysecret@host",
        "redis://user:very#secret@host",
        "redis://:verysecret@host?timeout=0",
        "redis://:verysecret@host?timeout=soon",
        "redis://:verysecret@host?prefix={",
        "redis://:verysecret@host?pool=3",
        "redis://:verysecret@host?ssl_cert_reqs=none",
        "redis://:verysecret@host?sentinel_user=a",
        "rediss://:verysecret@host?ssl_cert_reqs=maybe",
        "rediss://:verysecret@host?ssl_check_hostname=perhaps",
        "rediss://:verysecret@host?ssl_ca_certs=/does/not/exist",
        "redis+sentinel://:verysecret@host",
        "redis+cluster://:verysecret@host/1",
        "redis+other://:verysecret@host",
        "redis://:verysecret@host?db=3",
        "valkeyss://:verysecret@host",
        "unix://:verysecret@host/run/redis.sock",
        "unix://:verysecret@",
        "unix://:verysecret@/run/redis.sock?db=first",
        "unixs://:verysecret@/run/redis.sock",
        "unix+cluster://:verysecret@/run/redis.sock",
        "rediss+unix://:verysecret@/run/redis.sock",
    ],
)
def test_malformed_urls_are_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "redis" in str(caught.value)
    assert "://" in str(caught.value)
    assert "verysecret" not in str(caught.value)
    assert "secret@" not in str(caught.value)


def test_redis_urls_open_redis_stores() -> None:
    for url in (
        "redis://host",
        "rediss://host",
        "redis+sentinel://host/main",
        "redis+cluster://host",
        "valkey://host",
        "unix:///x",
    ):
        assert isinstance(open_store(url), RedisStore)


@pytest.mark.parametrize("scheme", ["unix", "redis+unix", "valkey+unix"])
async def test_a_unix_socket_url_connects(scheme: str, tmp_path: Path) -> None:
    with running(needed_valkey(), "--unixsocket", str(tmp_path / "the socket"), password="p@ss") as server:
        store = open_store(f"{scheme}://:p%40ss@{tmp_path}/the%20socket?db=3")
        await store.open()
        await store.create("key", Entry(b"", 2**41, "user"))
        await store.ping()
        assert [stored.key for stored in await store.find(SessionIndex(user="user"))] == ["key"]
        assert isinstance(store, RedisStore)
        listening = asyncio.create_task(store.listen(lambda _: None, patience=60))
        await asyncio.to_thread(until, lambda: b"pubsub_channels:1" in info(server, "stats"))
        listening.cancel()
        await asyncio.wait([listening])
        await store.close()
        assert b"db3:keys=" in info(server, "keyspace")
    with pytest.raises(StoreUnavailableError):
        await open_store(f"{scheme}://:p%40ss@{tmp_path}/the%20socket").open()


async def test_the_error_of_the_network_is_the_reason() -> None:
    with pytest.raises(StoreUnavailableError, match=r"\(ConnectionRefusedError\)"):
        await RedisStore(f"redis://127.0.0.1:{free_port()}").open()


async def test_listening_ends_at_once_whenever_it_is_cancelled(valkey: RedisServer) -> None:
    """`asyncio.wait_for` of Python 3.11, which redis-py uses to send, may swallow the cancellation."""
    store = open_store(valkey.url)
    assert isinstance(store, RedisStore)
    await store.open()
    for turns in range(0, 400, 2):
        listening = asyncio.create_task(store.listen(lambda _: None, patience=60))
        for _ in range(turns):
            await asyncio.sleep(0)
        listening.cancel()
        done, _ = await asyncio.wait([listening], timeout=60)
        assert done, f"cancelled after {turns} turns of the event loop"
    await store.close()


async def test_tls_with_a_user_needs_a_trusted_certificate(tmp_path: Path) -> None:
    """A verified certificate, and one that is not trusted."""
    program = needed_redis()
    certificate, key = certificate_for_loopback(tmp_path)
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no")
    with running(program, *tls) as server:
        server.admin("ACL", "SETUSER", "sessions", "on", ">p@ss", "~sc:*", "+@all")
        store = RedisStore(f"rediss://sessions:p%40ss@127.0.0.1:{port}/2?ssl_ca_certs={certificate}")
        await store.open()
        await store.ping()
        await asyncio.gather(*(store.create(str(number), Entry(bytes(100_000), 2**41, "user")) for number in range(20)))
        assert len(await store.find(SessionIndex(user="user"))) == 20
        await store.close()
        for url in (f"rediss://127.0.0.1:{port}", f"redis://127.0.0.1:{port}", f"rediss://127.0.0.1:{server.port}"):
            with pytest.raises(StoreUnavailableError):
                await RedisStore(url, timeout=1).open()


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
async def test_the_documented_acl_user_can_do_what_the_store_needs(kind: str) -> None:
    """And nothing else: the line is read from the page."""
    page = (Path(__file__).parents[4] / "docs/reference/stores.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER app "))
    with ExitStack() as stack:
        if kind == "cluster":
            servers = stack.enter_context(cluster(needed_valkey(), primaries=1, replicas=False))
            server, url = servers.primaries[0], servers.url
        else:
            server = stack.enter_context(running(needed_valkey() if kind == "valkey" else needed_redis()))
            url = server.url
        server.admin(*line.replace("PASSWORD", "secret").split())
        store = RedisStore(url.replace("://", "://app:secret@"))
        await store.open()
        keys = [session_key(new_session_id()) for _ in range(12)]
        entry = Entry(b"", 2**41, "user", "op")
        server.admin("CONFIG", "RESETSTAT")
        listening = asyncio.create_task(store.listen(lambda _: None, patience=1))
        for rank, key in enumerate(keys):
            await store.create(key, Entry(b"", 2**41, "user", "op", rank), limit=11)
        await store.replace(keys[1], Entry(b"", 2**41 + 10**8, "user", "op"), version=1)
        await store.touch(keys[2], 2**41 + 10**9)
        await store.rotate(
            keys[11], moved := session_key(new_session_id(after=keys[11])), entry, version=1, successor_until=2**41
        )
        assert len(await store.find(SessionIndex(user="user"))) == 11
        assert len([stored async for stored in store.scan()]) == 11
        assert moved in await store.trace([moved])
        assert await store.claim("name", 2**41) is True
        assert await store.claimed_until("name") == 2**41
        assert await store.delete(moved) == (moved,)
        assert len(await store.delete_by(SessionIndex(op_session="op"))) == 10
        assert await store.find(SessionIndex(user="user")) == []
        await store.ping()
        await asyncio.to_thread(until, lambda: listening.done() or b"cmdstat_ping:calls=1" in info(server, "commandstats"))
        assert not listening.done()
        listening.cancel()
        await asyncio.wait([listening])
        await store.close()
        denied = {entry[entry.index(b"object") + 1] for entry in server.admin("ACL", "LOG")}  # type: ignore[attr-defined]
        assert denied <= {b"client|setinfo", b"client"}  # redis-py sends its name where permitted


async def test_sentinel_urls_lead_to_the_new_primary() -> None:
    """The primary is killed; its replica takes over and has the sessions."""
    program = needed_valkey()
    with running(program) as primary, running(program, "--replicaof", f"127.0.0.1 {primary.port}") as replica:
        sentinel_options = ["--sentinel", "monitor", "main", "127.0.0.1", str(primary.port), "1"]
        with running(program, "--sentinel") as sentinel:
            sentinel.admin("SENTINEL", *sentinel_options[1:])
            for option, value in (("down-after-milliseconds", 60_000), ("failover-timeout", 1000)):
                sentinel.admin("SENTINEL", "SET", "main", option, value)
            await asyncio.to_thread(until, lambda: b"state=online" in info(primary, "replication"))
            store = RedisStore(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main")
            await store.open()
            await store.create("key", Entry(b"kept", 2**41))
            await asyncio.to_thread(until, lambda: replica.admin("EXISTS", b"sc:{key}") == 1)
            await asyncio.to_thread(until, lambda: b"slaves=1" in info(sentinel, "sentinel"))
            sentinel.admin("SENTINEL", "SET", "main", "down-after-milliseconds", 300)
            primary.kill()
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await store.replace("key", Entry(b"new", 2**41), version=1) == 2
                    except StoreUnavailableError:
                        await asyncio.sleep(0.05)
                    else:
                        break
            await store.ping()
            await store.close()
    with pytest.raises(StoreUnavailableError):
        await RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/main").open()
