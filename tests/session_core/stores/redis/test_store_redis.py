"""The store contract on real servers: Valkey, the system's Redis, and a cluster of three primaries with replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from session_core.stores.base import SessionStore
from session_core.stores.redis.store import RedisStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.support.opened_store import opened_store
from tests.support.redis_servers import RedisCluster, RedisServer


class TestValkeyStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, valkey: RedisServer) -> AsyncIterator[SessionStore]:
        async with opened_store(RedisStore(valkey.url, clock=clock)) as store:
            yield store


class TestRedisStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, old_redis: RedisServer) -> AsyncIterator[SessionStore]:
        async with opened_store(RedisStore(old_redis.url, clock=clock)) as store:
            yield store


class TestValkeyClusterStore(SessionStoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, valkey_cluster: RedisCluster) -> AsyncIterator[SessionStore]:
        async with opened_store(RedisStore(valkey_cluster.url, clock=clock)) as store:
            yield store
