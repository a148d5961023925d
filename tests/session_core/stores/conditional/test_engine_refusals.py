"""Engines that cannot keep the guarantees, and invalid URLs, are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from pymongo.errors import ServerSelectionTimeoutError

from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.base import Entry
from session_core.stores.conditional.documents import Versioned
from session_core.stores.conditional.pieces import InPieces
from session_core.stores.conditional.store import ConditionalStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock
from tests.session_core.stores.conditional.engines import EngineProcess, memcached, memcached_server, moto  # noqa: F401 - fixtures
from tests.session_core.stores.conditional.stepped_engine import CAPABILITIES, SteppedEngine, processes
from tests.session_core.stores.turns import Turns
from tests.support.ports import free_port

pytestmark = pytest.mark.anyio


class _OverwritesAnything(SteppedEngine):
    def _write(self, name: str, value: Versioned | None, version: object | None) -> bool:
        there = self._values.get(name)
        return super()._write(name, value, None if there is None else there.version)


class _CreatesOnly(SteppedEngine):
    """Checks `version` only when it is None, as a server that supports `If-None-Match` but not `If-Match`."""

    def _write(self, name: str, value: Versioned | None, version: object | None) -> bool:
        there = self._values.get(name)
        return super()._write(name, value, None if version is None or there is None else there.version)


class _DeletesAnything(SteppedEngine):
    async def delete(self, name: str, *, version: object) -> bool:
        del version
        return self._values.pop(name, None) is not None


@pytest.mark.parametrize("kind", [_OverwritesAnything, _CreatesOnly, _DeletesAnything])
async def test_an_engine_that_ignores_conditions_is_refused_at_open(kind: type[SteppedEngine]) -> None:
    (store,), _, _ = processes(1, kind=kind)
    with pytest.raises(ConfigurationError, match="no conditional writes"):
        await store.open()


@pytest.mark.parametrize("options", [(), ("-M",), ("-o", "slab_automove=0")], ids=["default", "moves", "evicts"])
async def test_a_memcached_that_evicts_is_refused(options: tuple[str, ...]) -> None:
    with memcached_server(*options) as server:
        store = open_store(f"memcached://{server.address}")
        with pytest.raises(ConfigurationError, match="start it with -M -o slab_automove=0"):
            await store.open()


async def test_a_full_memcached_is_an_outage_and_loses_nothing() -> None:
    clock = FakeClock()
    with memcached_server("-M", "-o", "slab_automove=0", "-m", "2") as server:
        store = open_store(f"memcached://{server.address}", clock=clock)
        await store.open()
        kept = 0
        entry = Entry(bytes(100_000), clock.now() + 3_600_000, "u")
        with suppress(StoreUnavailableError):
            while kept < 200:
                await store.create(f"k{kept}", entry)
                kept += 1
        assert 3 < kept < 200
        for number in range(kept):
            assert await store.load(f"k{number}") is not None
        await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://",
        "dynamodb://key:hunter2@table",
        "dynamodb://table?secret=hunter2",
        "dynamodb://table/hunter2",
        "dynamodb://table?prefix=a/hunter2",
        "s3://",
        "s3://key:hunter2@bucket",
        "s3://bucket?token=hunter2",
        "azure-tables://",
        "azure-tables://account:hunter2@table",
        "azure-tables://sessions?key=hunter2",
        "mongodb://",
        "mongodb://user:hunter2@host/a/b",
        "mongodb://user:hunter2@host:port/db",
        "mongodb://user:hunter2@host/db?collection=a$b",
        "memcached://",
        "memcached://user:hunter2@",
        "memcached://:hunter2@host",
        "memcached://host/hunter2",
        "memcached://host?timeout=hunter2",
        "memcached://host?tls=hunter2",
        "memcached://a,b",
        "memcached://user:hunter2@host:99999",
        "memcached://user:hunter2@host:0",
        "memcached://user:hunter2@host..example",
    ],
)
def test_an_invalid_url_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_store(url)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(refused.value.__cause__)


async def test_an_azure_table_without_a_connection_string_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    with pytest.raises(ConfigurationError, match="holds no connection string"):
        await open_store("azure-tables://sessions").open()


async def test_an_unreachable_engine_is_an_outage() -> None:
    store = open_store("memcached://127.0.0.1:1")
    with pytest.raises((OSError, StoreUnavailableError)):
        await store.open()
    with pytest.raises(StoreUnavailableError):
        await store.load("key")
    await store.close()


async def test_documents_in_chunks_leave_no_chunks() -> None:
    """When overwritten, deleted or refused: the chunks are deleted with the document that names them."""
    values: dict[str, Versioned] = {}
    pieces = InPieces(SteppedEngine(values, Turns(), 0), 10)
    store = ConditionalStore(pieces, CAPABILITIES, clock=(clock := FakeClock()))
    await store.open()
    entry = Entry(bytes(range(250)), clock.now() + 60_000, "u")
    await store.create("key", entry)
    assert sum(name.startswith("p:") for name in values) > 25
    assert (await store.load("key")).entry == entry  # type: ignore[union-attr]
    await store.replace("key", Entry(b"", clock.now() + 60_000, "u"), version=1)
    outcomes = await asyncio.gather(*(store.touch("key", clock.now() + 61_000 + number) for number in range(5)))
    assert outcomes == [True] * 5
    assert await store.delete("key") == ("key",)
    assert values == {}


async def test_a_document_is_read_consistently_while_it_is_overwritten() -> None:
    values: dict[str, Versioned] = {}
    documents = InPieces(SteppedEngine(values, Turns(), 0), 10)
    await documents.put("s:key", bytes(100), version=None, seconds=60)

    class _WrittenOver(SteppedEngine):
        """Another process writes between the reads of the document and of its chunks."""

        async def get(self, names: Sequence[str]) -> list[Versioned | None]:
            if names[0].startswith("p:") and len(values["s:key"].value) > 5 and not self.done:
                type(self).done = True
                (found,) = await documents.get(["s:key"])
                assert found is not None
                await documents.put("s:key", b"new" * 20, version=found.version, seconds=60)
            return await super().get(names)

        done = False

    (found,) = await InPieces(_WrittenOver(values, Turns(), 1), 10).get(["s:key"])
    assert found is not None
    assert found.value == b"new" * 20


async def test_the_url_of_mongodb_sets_how_long_a_server_is_waited_for() -> None:
    store = open_store(f"mongodb://127.0.0.1:{free_port()}/app?serverSelectionTimeoutMS=50")
    with pytest.raises(ServerSelectionTimeoutError, match=r"Timeout: 0\.05s"):
        await store.open()
