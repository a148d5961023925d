"""The store contract on each engine with conditional writes whose server is available."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import httpx2
import pytest
from pymongo import AsyncMongoClient

from session_core.stores.base import SessionStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.conditional.engines import EngineProcess, azurite, memcached, moto, secantusdb  # noqa: F401 - fixtures
from tests.session_core.stores.conditional.mongodb_standin import MongoDbStandin
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio


class _EngineContract(SessionStoreContract):
    """A separate prefix for each test, so that no test has to empty the engine."""

    rounds = 4
    server: str
    """The fixture of the engine."""
    url: str

    @pytest.fixture(autouse=True)
    def engine(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> EngineProcess:
        engine: EngineProcess = request.getfixturevalue(self.server)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", engine.address)
        return engine

    @pytest.fixture
    async def store(self, clock: FakeClock, engine: EngineProcess) -> AsyncIterator[SessionStore]:
        self._engine = engine
        async with opened_store(open_store(self.url.format(address=engine.address, name=engine.name()), clock=clock)) as store:
            yield store

    @asynccontextmanager
    async def stalled(self, store: SessionStore) -> AsyncIterator[None]:
        del store
        self._engine.freeze()
        try:
            yield
        finally:
            self._engine.thaw()


class TestMemcached(_EngineContract):
    rounds = 8
    server = "memcached"
    url = "memcached://{address}?prefix={name}:"


class TestDynamoDb(_EngineContract):
    rounds = 8
    server = "moto"
    url = "dynamodb://sessions?prefix={name}:&region=eu-central-1&endpoint={address}"


class TestS3(_EngineContract):
    server = "moto"
    url = "s3://sessions/{name}?region=us-east-1&endpoint={address}"

    @pytest.fixture(autouse=True)
    def bucket(self, engine: EngineProcess) -> None:
        httpx2.put(f"{engine.address}/sessions", headers={"host": "s3.amazonaws.com"}).raise_for_status()


class TestAzureTables(_EngineContract):
    server = "azurite"
    url = "azure-tables://sessions?prefix={name}:"


class TestSecantusDb(_EngineContract):
    """MongoDB's driver, against a server that no part of this project wrote."""

    server = "secantusdb"
    url = "mongodb://{address}/app?collection={name}"


class TestMongoDb(SessionStoreContract):
    """On a stand-in: no package installs MongoDB."""

    rounds = 8

    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
        async with MongoDbStandin().running() as standin:
            url = f"mongodb://127.0.0.1:{standin.port}/app?collection=logins"
            async with opened_store(open_store(url, clock=clock)) as store:
                yield store


if "MONGODB_TEST_URL" in os.environ:

    class TestMongoDbServer(SessionStoreContract):
        """On the server at MONGODB_TEST_URL, in a new database for each test."""

        rounds = 8

        @pytest.fixture
        async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
            server, _, options = os.environ["MONGODB_TEST_URL"].partition("?")
            database = f"session_core_test_{token_hex(6)}"
            url = f"{server.rstrip('/')}/{database}?{options}".rstrip("?")
            try:
                async with opened_store(open_store(url, clock=clock)) as store:
                    yield store
            finally:
                async with AsyncMongoClient[dict[str, Any]](url) as client:
                    await client.drop_database(database)
