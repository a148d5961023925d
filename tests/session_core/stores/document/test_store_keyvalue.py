"""The store contract with py-key-value: in memory, on disk, in files, and on a real Valkey."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from key_value.aio.stores.memory import MemoryStore
from key_value.aio.wrappers.prefix_keys import PrefixKeysWrapper

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex, SessionStore, StoreCapabilities
from session_core.stores.document import backend as documents
from session_core.stores.document import keyvalue, keyvalue_backends
from session_core.stores.document.keyvalue import KeyValueStore
from session_core.stores.guarded import GuardedStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.contract.one_process import OneProcessContract
from tests.support.opened_store import opened_store
from tests.support.redis_servers import RedisServer, needed_valkey, running
from tests.support.stopwatch import stopwatch

pytestmark = pytest.mark.anyio


def _opened(url: str, clock: FakeClock) -> AbstractAsyncContextManager[KeyValueStore]:
    return opened_store(KeyValueStore.from_url(url, clock=clock))


class TestMemory(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        async with _opened("keyvalue+memory://", clock) as store:
            yield store


class TestDisk(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SessionStore]:
        async with _opened(f"keyvalue+disk://{tmp_path}/kv", clock) as store:
            yield store


class TestFileTree(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SessionStore]:
        async with _opened(f"keyvalue+filetree://{tmp_path}/kv", clock) as store:
            yield store


class _OnValkey:
    @pytest.fixture
    async def store(self, clock: FakeClock, valkey: RedisServer) -> AsyncIterator[SessionStore]:
        async with _opened(f"keyvalue+{valkey.url}", clock) as store:
            yield store


class TestValkey(_OnValkey, SessionStoreContract): ...


class TestOneProcess(_OnValkey, OneProcessContract): ...


async def test_a_custom_backend_stays_open_and_no_guarantee_is_assumed() -> None:
    kv = MemoryStore()
    store = KeyValueStore(PrefixKeysWrapper(kv, prefix="a"))
    assert store.capabilities == StoreCapabilities(
        atomic=False, indexed=True, shared=False, durable=False, native_expiry=False, consistent=False, listable=False,
        keeps_deadlines=False,
    )  # fmt: skip
    told = KeyValueStore(kv, shared=True, durable=True)
    assert (told.capabilities.shared, told.capabilities.durable, told.capabilities.native_expiry) == (True, True, True)
    await store.open()
    await store.close()
    await kv.put("still", {"open": 1})
    with pytest.raises(StoreUnavailableError):
        await store.load("key")


@pytest.mark.parametrize("value", [{"b": 5}, {"b": "no base64!"}, {"c": "x"}, {}, {"b": "aGVsbG8="}])
async def test_an_undecodable_value_is_an_unreadable_session(value: dict[str, object]) -> None:
    clock, kv = FakeClock(), MemoryStore()
    store = KeyValueStore(kv, clock=clock)
    await store.open()
    for name in ("s.key", "c.name", "g.uu", "u.uu"):
        await kv.put(name, value, collection="session_core")
    stored = await store.load("key")
    assert stored is not None
    assert stored.entry.data == b""
    assert await store.claim("name", clock.now() + 1000) is False
    await store.create("new", Entry(b"data", clock.now() + 1000, user="u"))
    assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == ["new"]


async def test_a_foreign_file_does_not_affect_other_documents(tmp_path: Path) -> None:
    clock = FakeClock()
    store = KeyValueStore.from_url(f"keyvalue+filetree://{tmp_path}/kv", clock=clock)
    await store.open()
    for key in ("good", "bad"):
        await store.create(key, Entry(b"data", clock.now() + 60_000, user="u"))
    (file,) = (tmp_path / "kv").rglob("s.bad.json")
    file.write_text('{"version": 1}')
    assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == ["good"]
    stored = await store.load("bad")
    assert stored is not None
    assert stored.entry.data == b""
    await store.close()


async def test_a_killed_server_recovers() -> None:
    clock = FakeClock()
    with running(needed_valkey()) as server:
        outages: list[str] = []

        async def report(reason: str) -> None:
            outages.append(reason)

        store = GuardedStore(KeyValueStore.from_url(f"keyvalue+{server.url}", clock=clock), timeout=60, on_outage=report)
        await store.open()
        await store.create("key", Entry(b"data", clock.now() + 60_000))
        server.freeze()
        store._timeout = 1.0
        async with stopwatch() as watch:
            with pytest.raises(StoreUnavailableError):
                await store.load("key")
            assert watch.seconds < 5
        store._timeout = 60
        server.thaw()
        assert await store.load("key") is not None
        server.kill()
        with pytest.raises(StoreUnavailableError):
            await store.delete("key")
        server.start()
        assert await store.load("key") is None
        assert await store.claim("name", clock.now() + 1000) is True
        assert len(outages) == 2
        await store.close()


async def test_expired_files_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyvalue, "_CULL_SECONDS", 0.0)
    monkeypatch.setattr(documents, "_SLACK_SECONDS", 1)
    clock = FakeClock()
    store = KeyValueStore.from_url(f"keyvalue+filetree://{tmp_path}/kv", clock=clock)
    await store.open()
    await store.claim("short", clock.now() + 1)
    (file,) = (tmp_path / "kv").rglob("c.short.json")
    deadline = time.monotonic() + 60
    while file.exists():
        assert time.monotonic() < deadline
        await store.claim(f"name{time.monotonic_ns()}", clock.now() + 60_000)
        await asyncio.sleep(0.05)
    await store.close()


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("keyvalue+redis://:pw@host:1/2?x=1", {"url": "redis://:pw@host:1/2?x=1"}),
        ("keyvalue+rediss://host", {"url": "rediss://host"}),
        ("keyvalue+mongodb://u:p@a,b/?replicaSet=r&db=shop", {"url": "mongodb://u:p@a,b/?replicaSet=r", "db_name": "shop"}),
        ("keyvalue+mongodb+srv://a/", {"url": "mongodb+srv://a/"}),
        ("keyvalue+memcached://host:1234", {"host": "host", "port": 1234}),
        ("keyvalue+memcached://host", {"host": "host", "port": 11211}),
        ("keyvalue+dynamodb://table?region=eu-central-1", {"table_name": "table", "region_name": "eu-central-1"}),
        ("keyvalue+s3://bucket?endpoint_url=http://a:1", {"bucket_name": "bucket", "endpoint_url": "http://a:1"}),
        ("keyvalue+rocksdb:///var/a%20b", {"path": "/var/a b"}),
    ],
)
def test_urls_select_their_backend(url: str, arguments: dict[str, object]) -> None:
    inner = url.removeprefix("keyvalue+")
    assert keyvalue_backends._arguments(inner.partition("://")[0], inner) == arguments


@pytest.mark.parametrize("name", ["mongodb", "memcached", "dynamodb", "s3", "rocksdb"])
def test_a_missing_package_is_named(name: str) -> None:
    url = f"keyvalue+{name}://{'/' if name == 'rocksdb' else ''}a"
    try:
        importlib.import_module(f"key_value.aio.stores.{name}")
    except ImportError:
        with pytest.raises(ConfigurationError, match=rf"py-key-value-aio\[{name}\]"):
            open_store(url)
    else:
        pytest.skip("the package is installed")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("keyvalue://x", "its scheme is none"),
        ("keyvalue+vault://x", "as an object"),
        ("keyvalue+disk://relative/path", "absolute path"),
        ("keyvalue+disk:///", "absolute path"),
        ("keyvalue+memory://x", "the whole of it"),
        ("keyvalue+s3://", "one host, table or bucket"),
        ("keyvalue+s3://key:secret@bucket", "no place for a user"),
        ("keyvalue+memcached://host:99999", "port"),
        ("keyvalue+memcached://host?a=1", "no option 'a'"),
    ],
)
def test_a_malformed_url_is_refused_without_showing_it(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as error:
        open_store(url)
    assert "secret" not in str(error.value)
