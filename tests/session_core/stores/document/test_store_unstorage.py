"""The store contract on a real unstorage server from npm, and other servers at its address."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry, SessionStore
from session_core.stores.document.unstorage import UnstorageStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.contract.one_process import OneProcessContract
from tests.session_core.stores.document.hostile_http import HTML, hostile, http
from tests.session_core.stores.document.unstorage_process import (  # noqa: F401 - fixtures
    UnstorageServer,
    _unstorage,
    unstorage_command,
    unstorage_server,
)
from tests.support.opened_store import opened_store
from tests.support.stopwatch import stopwatch

pytestmark = pytest.mark.anyio
_numbers = itertools.count()


@pytest.fixture
def server(_unstorage: UnstorageServer) -> UnstorageServer:  # noqa: F811
    return _unstorage


def _base(kind: str) -> str:
    """A base URL that no other test uses."""
    return f"{kind}/{next(_numbers)}"


async def _opened(url: str, clock: FakeClock) -> AsyncIterator[SessionStore]:
    # A long deadline: these tests check the order of writes, and a loaded machine must not cause an outage.
    async with opened_store(UnstorageStore(url, clock=clock, timeout=30)) as store:
        yield store


class TestMemoryDriver(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, server: UnstorageServer) -> AsyncIterator[SessionStore]:
        async for store in _opened(server.url(_base("memory"), query="durable=true"), clock):
            yield store


class TestFileDriver(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, server: UnstorageServer) -> AsyncIterator[SessionStore]:
        async for store in _opened(server.url(_base("fs"), query="durable=true"), clock):
            yield store


class TestExpiringDriver(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, server: UnstorageServer) -> AsyncIterator[SessionStore]:
        async for store in _opened(server.url(_base("ttl"), query="ttl=true"), clock):
            yield store


class TestOneProcess(OneProcessContract):
    rounds = 4

    @pytest.fixture
    async def store(self, clock: FakeClock, server: UnstorageServer) -> AsyncIterator[SessionStore]:
        async for store in _opened(server.url(_base("memory")), clock):
            yield store


async def test_the_time_to_live_is_sent_to_the_server(server: UnstorageServer) -> None:
    clock, base = FakeClock(), _base("ttl")
    async for store in _opened(server.url(base, query="ttl=true"), clock):
        await store.create("key", Entry(b"data", clock.now() + 600_000))
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.head(server.url(f"{base}/s/key"))
    assert 600 <= int(answer.headers["x-ttl"]) <= 700


async def test_a_token_is_sent_and_not_shown(server: UnstorageServer) -> None:
    base = _base("locked")
    store = UnstorageStore(server.url(base, token="open-sesame"))
    await store.open()
    await store.ping()
    assert "sesame" not in repr(store) + repr(vars(store)) + repr(vars(store._documents))
    await store.close()
    for token in ("", "wrong"):
        refused = UnstorageStore(server.url(base, token=token))
        with pytest.raises(StoreUnavailableError) as error:
            await refused.load("key")
        assert "wrong" not in repr(error.value)
        await refused.close()


async def test_a_token_comes_from_the_environment(server: UnstorageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_TOKEN", "open-sesame")
    store = open_store(server.url(_base("locked"), query="token_env=STORAGE_TOKEN"))
    await store.open()
    assert await store.load("unknown") is None
    await store.close()


async def test_a_killed_server_recovers(unstorage_command: list[str], tmp_path: Path) -> None:  # noqa: F811
    clock = FakeClock()
    with unstorage_server(unstorage_command, tmp_path) as server:
        store = UnstorageStore(server.url("fs/a"), clock=clock)
        await store.open()
        await store.create("key", Entry(b"data", clock.now() + 600_000, user="u"))
        server.kill()
        started = time.monotonic()
        for call in (store.load("key"), store.delete("key"), store.ping(), store.claim("a", clock.now() + 1000)):
            with pytest.raises(StoreUnavailableError):
                await call
        assert time.monotonic() - started < 30
        server.start()
        stored = await store.load("key")
        assert stored is not None
        assert stored.entry.data == b"data"
        await store.close()


@pytest.mark.parametrize(
    "answer",
    [
        http(200, HTML),
        http(200, HTML, "text/html; charset=utf-8"),
        http(200, b"{}", "application/json"),
        http(404, HTML),
        http(404, b'{"statusCode":404,"statusMessage":"no such page"}', "application/json"),
        http(500, b'{"statusCode":500}', "application/json"),
        http(302, b"", "", "location: http://127.0.0.1:1/"),
        http(401, b"{}", "application/json"),
        http(200, gzip.compress(b"x"), "", "content-encoding: gzip"),
        http(200, b"x" * 9_000_000, ""),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
    ids=["html", "charset", "json", "404", "json404", "500", "302", "401", "gzip", "huge", "cut", "ssh", "closed"],
)
async def test_any_other_response_is_an_outage_and_no_logout(answer: bytes) -> None:
    async with hostile(lambda _: answer) as service:
        store = UnstorageStore(f"http://127.0.0.1:{service.port}/base")
        calls = [store.load("key"), store.delete("key"), store.touch("key", 1), store.claimed_until("name"), store.open()]
        for call in calls:
            with pytest.raises(StoreUnavailableError):
                await call
        await store.close()


@pytest.mark.parametrize("drip", [0.0, 0.05])
async def test_a_silent_or_dripping_server_ends_with_the_timeout(drip: float) -> None:
    async with hostile(lambda _: http(200, b"x" * 1000, "") if drip else None, drip=drip) as service:
        store = UnstorageStore(f"http://127.0.0.1:{service.port}/?timeout=0.3")
        async with stopwatch() as watch:
            with pytest.raises(StoreUnavailableError, match="in time"):
                await store.load("key")
            assert watch.seconds < 3
        await store.close()


async def test_no_harmful_request_is_sent() -> None:
    async with hostile(lambda _: http(500, b"")) as service:
        store = UnstorageStore(f"http://:secret@127.0.0.1:{service.port}/base")
        with pytest.raises(StoreUnavailableError):
            await store.load("key")
        await store.close()
        head = service.heads[0].lower()
    assert "accept-encoding: identity" in head
    assert "authorization: bearer secret" in head
    assert "cookie" not in head


@pytest.mark.parametrize("value", [b"junk", b"\x89sc1", b"\x89sc1\xc1", b"\x89sc1" + b"\x91" * 50_000, b"", b"\x89sc1\x91\x01"])
async def test_an_undecodable_value_is_an_unreadable_session(server: UnstorageServer, value: bytes) -> None:
    clock, base = FakeClock(), _base("memory")
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"content-type": "application/octet-stream"}
        for name in ("s/key", "c/name", "g/uu", "u/uu"):
            await client.put(server.url(f"{base}/{name}"), content=value, headers=headers)
    async for store in _opened(server.url(base), clock):
        stored = await store.load("key")
        assert stored is None or stored.entry.data == b""
        assert await store.touch("key", clock.now() + 1000) is False
        assert [found.entry.data async for found in store.scan()] in ([], [b""])
        await store.delete_expired()
        await store.delete("key")
        assert await store.load("key") is None
        await store.create("new", Entry(b"data", clock.now() + 600_000, user="u"))
        assert await store.load("new") is not None


async def test_many_requests_share_a_few_connections(server: UnstorageServer) -> None:
    clock = FakeClock()
    async for store in _opened(server.url(_base("memory")), clock):
        await store.create("key", Entry(b"data", clock.now() + 600_000))
        found = await asyncio.gather(*(store.load("key") for _ in range(200)))
        assert all(found)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http:///a", "another form"),
        ("http://host/a b", "another form"),
        ("http://host/a#b", "another form"),
        ("http://host:99999/a", "no such host and port"),
        ("http://host:0/a", "no such host and port"),
        ("http://host..example/a", "no such host and port"),
        ("http://[1:2]/a", "no such host and port"),
        ("http://user:password@host/a", "no user"),
        ("https://token@host/a", "no user"),
        ("http://host/a//b", "empty part"),
        ("http://host/../b", "of dots"),
        ("http://host/a?ttl=yes", "true or false"),
        ("http://host/a?what=1", "no option 'what'"),
        ("http://host/a?timeout=0", "timeout"),
        ("http://host/a?token_env=NO_SUCH_VARIABLE", "token_env"),
        ("http://:%0d%0ax@host/a", "a token may hold"),
    ],
)
def test_a_malformed_url_is_refused_without_showing_it(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as error:
        open_store(url)
    assert "password" not in str(error.value)
    assert url not in str(error.value)
