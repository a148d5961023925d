"""A real PgBouncer for a test: the system's program in front of a PostgreSQL, pooling by transaction, ended with its parent."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer
from tests.support.redis_servers import end_with_parent

INSTALL = "apt-get install pgbouncer"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
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
    program = shutil.which("pgbouncer", path=_PATH)
    if program is None:
        assert not os.environ.get("CI"), f"pgbouncer is not installed: {INSTALL}"
        pytest.skip(f"pgbouncer is not installed: {INSTALL}")
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    if user is not None:
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    encrypted = "" if tls is None else _TLS.format(certificate=tls[0], key=tls[1])
    (directory / "ini").write_text(_CONFIGURATION.format(server=server, port=port, size=size) + encrypted)
    (directory / "ini").chmod(0o644)
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, directory / "ini"],
            user=user,
            cwd=directory,
            stdout=output,
            stderr=output,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
    try:
        deadline = time.monotonic() + 90
        while b"process up" not in log.read_bytes():
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.02)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):
            shutil.rmtree(directory)
