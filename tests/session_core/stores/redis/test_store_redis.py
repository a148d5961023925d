"""The store contract on real servers: Valkey, the system's Redis, and a cluster of three primaries with replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from session_core.stores.base import SessionStore
from session_core.stores.redis.store import RedisStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.support.redis_servers import RedisCluster, RedisServer


class TestValkeyStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, valkey: RedisServer) -> AsyncIterator[SessionStore]:
        store = RedisStore(valkey.url, clock=clock)
        await store.open()
        yield store
        await store.close()


class TestRedisStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, old_redis: RedisServer) -> AsyncIterator[SessionStore]:
        store = RedisStore(old_redis.url, clock=clock)
        await store.open()
        yield store
        await store.close()


class TestValkeyClusterStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, valkey_cluster: RedisCluster) -> AsyncIterator[SessionStore]:
        store = RedisStore(valkey_cluster.url, clock=clock)
        await store.open()
        yield store
        await store.close()
