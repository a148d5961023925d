"""A real MariaDB for a test run: the system's mariadbd with its own directory and port, ended with its parent."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.freezing import freeze
from tests.support.ports import free_port
from tests.support.redis_servers import end_with_parent

INSTALL = "apt-get install mariadb-server"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def installed() -> Path | None:
    """Return the path of the server program, or None. Debian keeps it outside a user's PATH."""
    found = shutil.which("mariadbd", path=_PATH)
    return Path(found) if found else None


class MariadbServer:
    """One server process; `kill` and `start` keep its port and data."""

    def __init__(self, program: Path, *options: str) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self._user = "nobody" if os.geteuid() == 0 else None  # as for PostgreSQL: the server refuses to run as root
        if self._user is not None:
            os.chown(self.directory, pwd.getpwnam(self._user).pw_uid, -1)
        self._program = program
        self._options = options
        self._begin = self.directory / "begin.sql"
        self._begin.write_text("CREATE DATABASE IF NOT EXISTS sessions;\n")
        self._begin.chmod(0o644)
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={self.directory / 'data'}", "--skip-test-db"],
            "--auth-root-authentication-method=normal",
            f"--tmpdir={self.directory}",  # a starting server removes the temporary tables of all servers in its directory
            "--skip-name-resolve",
        )

    @property
    def url(self) -> str:
        return self.url_through(self.port)

    def url_through(self, port: int, database: str = "sessions") -> str:
        """The URL of a database through a port of the server or of a proxy."""
        return f"mysql+asyncmy://root@127.0.0.1:{port}/{database}"

    def start(self, *options: str) -> None:
        """Return when it accepts connections."""
        log = self.directory / "log"
        seen = log.stat().st_size if log.exists() else 0
        command = [
            str(self._program),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--tmpdir={self.directory}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            # Commits are written without fsync: they survive a killed server, but not a power failure.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            f"--init-file={self._begin}",
            *self._options,
            *options,
        ]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                user=self._user,
                preexec_fn=end_with_parent,  # noqa: PLW1509
            )
        deadline = time.monotonic() + 90
        while b"ready for connections" not in log.read_bytes()[seen:]:
            assert self._process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.02)

    def freeze(self) -> None:
        freeze(self._running.pid)

    def thaw(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Shut it down cleanly."""
        self._running.terminate()
        self._running.wait(timeout=90)
        self._process = None

    def remove(self) -> None:
        self.kill()
        with suppress(OSError):
            shutil.rmtree(self.directory)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _run(self, command: list[str], *options: str) -> None:
        environment = {**os.environ, "PATH": _PATH}
        tried = subprocess.run(
            [*command, *options], user=self._user, cwd=self.directory, env=environment, capture_output=True, check=False
        )
        assert tried.returncode == 0, tried.stderr.decode(errors="replace") + tried.stdout.decode(errors="replace")


@contextmanager
def mariadb_server() -> Iterator[MariadbServer]:
    """Run a server; skips the test if the program is missing."""
    program = installed()
    if program is None:
        assert not os.environ.get("CI"), f"mariadbd is not installed: {INSTALL}"
        pytest.skip(f"mariadbd is not installed: {INSTALL}")
    server = MariadbServer(program)
    try:
        server.start()
        yield server
    finally:
        server.remove()
