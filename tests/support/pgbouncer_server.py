"""A real PgBouncer for a test: the system's program in front of a PostgreSQL, pooling by transaction, ended with its parent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.child_process import SYSTEM_PATH, ServerProcess, needed
from tests.support.postgres_server import PostgresServer

INSTALL = "apt-get install pgbouncer"
_CONFIGURATION = """
[databases]
* = host={server.directory} port={server.port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
"""
_TLS = """
client_tls_sslmode = require
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
"""


@contextmanager
def pgbouncer(server: PostgresServer, *, size: int, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Run one that shares `size` connections to `server` among its clients; yields its URL. Skips the test if it is missing.

    With the files of a certificate and its key in `tls`, it refuses clients that do not encrypt.
    """
    program = needed(shutil.which("pgbouncer", path=SYSTEM_PATH), "pgbouncer", INSTALL)
    process = ServerProcess("pgbouncer", refuses_root=True)
    encrypted = "" if tls is None else _TLS.format(certificate=tls[0], key=tls[1])
    settings = process.directory / "ini"
    settings.write_text(_CONFIGURATION.format(server=server, port=process.port, size=size) + encrypted)
    settings.chmod(0o644)
    try:
        process.launch([program, settings], ready=b"process up")
        yield f"postgresql://postgres@127.0.0.1:{process.port}/postgres"
    finally:
        process.remove()
