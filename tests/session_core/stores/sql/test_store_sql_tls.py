"""TLS over TCP to real servers that refuse connections without it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_core.errors import StoreUnavailableError
from session_core.stores import open_store
from session_core.stores.base import Entry
from tests.support.certificates import make_certificate
from tests.support.mariadb_server import MariadbServer, mariadb_server
from tests.support.opened_store import opened_store
from tests.support.pgbouncer_server import pgbouncer
from tests.support.postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.anyio

HOST = "db.example"
"""The name in the certificate, beside 127.0.0.1."""


def certify(server: PostgresServer | MariadbServer) -> tuple[Path, Path]:
    """Return a certificate and its key, which the server alone may read."""
    chain, key = make_certificate(server.directory, HOST)
    key.chmod(0o600)
    if os.geteuid() == 0:  # then the server runs as another user
        shutil.chown(key, "nobody")
    return chain, key


@pytest.fixture(scope="module")
def postgresql() -> Iterator[tuple[str, Path]]:
    """The URL, its host called HOST, and the authorities. PgBouncer does the TLS: the wheel's PostgreSQL is built without it."""
    with postgres_server() as server:
        chain, key = certify(server)
        with pgbouncer(server, size=4, tls=(chain, key)) as url:
            yield url.replace("127.0.0.1", "HOST") + "?prepared_statements=off&", chain


@pytest.fixture(scope="module")
def mysql() -> Iterator[tuple[str, Path]]:
    """Likewise."""
    with mariadb_server() as server:
        chain, key = certify(server)
        server.stop()
        server.start(f"--ssl-cert={chain}", f"--ssl-key={key}", "--require-secure-transport=ON")
        yield f"mysql://root@HOST:{server.port}/sessions?", chain


async def works(url: str) -> bool:
    """Whether a session can be kept there; an outage otherwise."""
    store = open_store(url)
    try:
        async with opened_store(store):
            await store.create("key", Entry(b"data", 2**41))
            found = await store.load("key")
            await store.delete("key")
    except StoreUnavailableError:
        return False
    return found is not None and found.entry.data == b"data"


@pytest.mark.parametrize(
    ("database", "host", "options", "expected"),
    [
        ("postgresql", "127.0.0.1", "sslmode=require", True),
        ("postgresql", "localhost", "sslmode=verify-ca&sslrootcert=AUTHORITIES", True),
        ("postgresql", "127.0.0.1", "sslmode=verify-full&sslrootcert=AUTHORITIES", True),
        ("postgresql", "127.0.0.1", "ssl=verify-full&sslrootcert=AUTHORITIES&application_name=web", True),
        ("postgresql", "127.0.0.1", "channel_binding=require&sslrootcert=AUTHORITIES", True),
        ("postgresql", "127.0.0.1", "sslmode=disable", False),
        ("postgresql", "127.0.0.1", "sslmode=verify-full&sslrootcert=system", False),
        ("postgresql", "localhost", "sslmode=verify-full&sslrootcert=AUTHORITIES", False),
        ("mysql", "127.0.0.1", "ssl-mode=REQUIRED", True),
        ("mysql", "localhost", "ssl-mode=VERIFY_CA&ssl_ca=AUTHORITIES", True),
        ("mysql", "127.0.0.1", "ssl-mode=VERIFY_IDENTITY&ssl_ca=AUTHORITIES", True),
        ("mysql", "127.0.0.1", "sslaccept=strict&sslcert=AUTHORITIES", True),
        ("mysql", "127.0.0.1", "ssl_ca=AUTHORITIES&ssl_verify_identity=true", True),
        ("mysql", "127.0.0.1", "charset=utf8mb4", False),
        ("mysql", "127.0.0.1", "sslaccept=strict", False),
        ("mysql", "127.0.0.1", "ssl=%7B%22rejectUnauthorized%22%3Atrue%7D", False),
        ("mysql", "localhost", "ssl-mode=VERIFY_IDENTITY&ssl_ca=AUTHORITIES", False),
    ],
)
async def test_tls(request: pytest.FixtureRequest, database: str, host: str, options: str, expected: bool) -> None:
    address, authorities = request.getfixturevalue(database)
    url = f"{address}{options}".replace("HOST", host).replace("AUTHORITIES", str(authorities))
    assert await works(url) is expected
