"""How the URL of a Redis store may look, and where it leads: through TLS, and past Sentinels."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.opening import open_store
from session_core.stores.redis.store import RedisStore
from session_core.stores.redis.url import parse_redis_url
from tests.session_core.stores.redis.redis_faults import certificate_for_loopback
from tests.support.ports import free_port
from tests.support.redis_servers import info, needed_redis, needed_valkey, running, until

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
    ],
)
def test_good_urls(url: str, addresses: list[tuple[str, int]]) -> None:
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
    for url in ("redis://host", "rediss://host", "redis+sentinel://host/main", "redis+cluster://host"):
        assert isinstance(open_store(url), RedisStore)


async def test_tls_and_a_user(tmp_path: Path) -> None:
    """A certificate that is checked, and one that is not trusted."""
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


async def test_sentinels_lead_to_the_new_primary() -> None:
    """The primary is killed; its replica takes over, and the sessions are there."""
    program = needed_valkey()
    with running(program) as primary, running(program, "--replicaof", f"127.0.0.1 {primary.port}") as replica:
        sentinel_options = ["--sentinel", "monitor", "main", "127.0.0.1", str(primary.port), "1"]
        with running(program, "--sentinel") as sentinel:
            sentinel.admin("SENTINEL", *sentinel_options[1:])
            for option, value in (("down-after-milliseconds", 300), ("failover-timeout", 1000)):
                sentinel.admin("SENTINEL", "SET", "main", option, value)
            await asyncio.to_thread(until, lambda: b"state=online" in info(primary, "replication"))
            store = RedisStore(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main")
            await store.open()
            await store.create("key", Entry(b"kept", 2**41))
            await asyncio.to_thread(until, lambda: replica.admin("EXISTS", b"sc:{key}") == 1)
            await asyncio.to_thread(until, lambda: b"slaves=1" in info(sentinel, "sentinel"))
            primary.kill()
            async with asyncio.timeout(15):
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
