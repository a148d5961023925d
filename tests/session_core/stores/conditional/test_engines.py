"""The store contract on each engine with conditional writes whose server is available."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from session_core.stores.base import SessionStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.conditional.engines import EngineProcess, azurite, memcached, moto  # noqa: F401 - fixtures
from tests.session_core.stores.conditional.mongodb_standin import MongoDbStandin

pytestmark = pytest.mark.anyio


class _EngineContract(SessionStoreContract):
    """A separate prefix for each test, so that no test has to empty the engine."""

    rounds = 8

    @pytest.fixture
    def engine(self) -> EngineProcess:
        raise NotImplementedError

    @pytest.fixture
    def url(self, engine: EngineProcess) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, clock: FakeClock, url: str, engine: EngineProcess) -> AsyncIterator[SessionStore]:
        self._engine = engine
        store = open_store(url, clock=clock)
        await store.open()
        yield store
        await store.close()

    @asynccontextmanager
    async def stalled(self, store: SessionStore) -> AsyncIterator[None]:
        del store
        self._engine.freeze()
        try:
            yield
        finally:
            self._engine.thaw()


class TestMemcached(_EngineContract):
    @pytest.fixture
    def engine(self, memcached: EngineProcess) -> EngineProcess:  # noqa: F811
        return memcached

    @pytest.fixture
    def url(self, engine: EngineProcess) -> str:
        return f"memcached://{engine.address}?prefix={engine.name()}:"


class TestDynamoDb(_EngineContract):
    @pytest.fixture
    def engine(self, moto: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> EngineProcess:  # noqa: F811
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        return moto

    @pytest.fixture
    def url(self, engine: EngineProcess) -> str:
        return f"dynamodb://sessions?prefix={engine.name()}:&region=eu-central-1&endpoint={engine.address}"


class TestS3(_EngineContract):
    rounds = 4

    @pytest.fixture
    def engine(self, moto: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> EngineProcess:  # noqa: F811
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        httpx2.put(f"{moto.address}/sessions", headers={"host": "s3.amazonaws.com"}).raise_for_status()
        return moto

    @pytest.fixture
    def url(self, engine: EngineProcess) -> str:
        return f"s3://sessions/{engine.name()}?region=us-east-1&endpoint={engine.address}"


class TestAzureTables(_EngineContract):
    rounds = 4

    @pytest.fixture
    def engine(self, azurite: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> EngineProcess:  # noqa: F811
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.address)
        return azurite

    @pytest.fixture
    def url(self, engine: EngineProcess) -> str:
        return f"azure-tables://sessions?prefix={engine.name()}:"


class TestMongoDb(SessionStoreContract):
    """On a stand-in: no package installs MongoDB."""

    rounds = 8

    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        async with MongoDbStandin().running() as standin:
            store = open_store(f"mongodb://127.0.0.1:{standin.port}/app?collection=logins", clock=clock)
            await store.open()
            yield store
            await store.close()
