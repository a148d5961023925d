"""TLS over TCP to real servers that refuse connections without it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

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
def postgres() -> Iterator[tuple[int, Path]]:
    """The port and the authorities. PgBouncer does the TLS: the wheel's PostgreSQL is built without it."""
    with postgres_server() as server:
        chain, key = certify(server)
        with pgbouncer(server, size=4, tls=(chain, key)) as url:
            yield urlsplit(url).port or 0, chain


@pytest.fixture(scope="module")
def mariadb() -> Iterator[tuple[int, Path]]:
    """The port and the authorities."""
    with mariadb_server() as server:
        chain, key = certify(server)
        server.stop()
        server.start(f"--ssl-cert={chain}", f"--ssl-key={key}", "--require-secure-transport=ON")
        yield server.port, chain


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
    ("host", "options", "expected"),
    [
        ("127.0.0.1", "sslmode=require", True),
        ("localhost", "sslmode=verify-ca&sslrootcert=AUTHORITIES", True),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=AUTHORITIES", True),
        ("127.0.0.1", "ssl=verify-full&sslrootcert=AUTHORITIES&application_name=web", True),
        ("127.0.0.1", "channel_binding=require&sslrootcert=AUTHORITIES", True),
        ("127.0.0.1", "sslmode=disable", False),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=system", False),
        ("localhost", "sslmode=verify-full&sslrootcert=AUTHORITIES", False),
    ],
)
async def test_postgresql(postgres: tuple[int, Path], host: str, options: str, expected: bool) -> None:
    port, authorities = postgres
    options = options.replace("AUTHORITIES", str(authorities))
    assert await works(f"postgresql://postgres@{host}:{port}/postgres?prepared_statements=off&{options}") is expected


@pytest.mark.parametrize(
    ("host", "options", "expected"),
    [
        ("127.0.0.1", "ssl-mode=REQUIRED", True),
        ("localhost", "ssl-mode=VERIFY_CA&ssl_ca=AUTHORITIES", True),
        ("127.0.0.1", "ssl-mode=VERIFY_IDENTITY&ssl_ca=AUTHORITIES", True),
        ("127.0.0.1", "sslaccept=strict&sslcert=AUTHORITIES", True),
        ("127.0.0.1", "ssl_ca=AUTHORITIES&ssl_verify_identity=true", True),
        ("127.0.0.1", "charset=utf8mb4", False),
        ("127.0.0.1", "sslaccept=strict", False),
        ("127.0.0.1", "ssl=%7B%22rejectUnauthorized%22%3Atrue%7D", False),
        ("localhost", "ssl-mode=VERIFY_IDENTITY&ssl_ca=AUTHORITIES", False),
    ],
)
async def test_mysql(mariadb: tuple[int, Path], host: str, options: str, expected: bool) -> None:
    port, authorities = mariadb
    options = options.replace("AUTHORITIES", str(authorities))
    assert await works(f"mysql://root@{host}:{port}/sessions?{options}") is expected
