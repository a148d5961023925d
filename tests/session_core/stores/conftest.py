"""Servers shared by the store tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.mariadb_server import MariadbServer, mariadb_server
from tests.support.postgres_server import PostgresServer, postgres_server
from tests.support.redis_servers import _old_redis, _valkey, _valkey_cluster, old_redis, valkey, valkey_cluster  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that runs as long as this test process."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    """Its URL."""
    return postgres.url


@pytest.fixture
async def database(postgres_url: str) -> str:
    """The URL of an empty database on that server."""
    engine = create_async_engine(postgres_url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS sessions, session_claims"))
    await engine.dispose()
    return postgres_url


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """A MariaDB that runs as long as this test process."""
    with mariadb_server() as server:
        yield server


@pytest.fixture
async def mariadb_url(mariadb: MariadbServer) -> str:
    """The URL of an empty database on that server."""
    engine = create_async_engine(mariadb.url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for table in ("sessions", "session_claims"):
            await connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
    await engine.dispose()
    return mariadb.url


@pytest.fixture(params=["postgres", "mariadb"])
def sql_server(request: pytest.FixtureRequest) -> PostgresServer | MariadbServer:
    """Each of the two servers in turn, with an empty database."""
    request.getfixturevalue({"postgres": "database", "mariadb": "mariadb_url"}[request.param])
    server = request.getfixturevalue(request.param)
    assert isinstance(server, PostgresServer | MariadbServer)
    return server
