"""A real MariaDB for a test run: the system's mariadbd with its own directory and port, ended with its parent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.child_process import SYSTEM_PATH, ServerProcess, needed

INSTALL = "apt-get install mariadb-server"


def installed() -> Path | None:
    """Return the path of the server program, or None."""
    found = shutil.which("mariadbd", path=SYSTEM_PATH)
    return Path(found) if found else None


class MariadbServer(ServerProcess):
    """One server process; `kill` and `start` keep its port and data."""

    def __init__(self, program: Path, *options: str) -> None:
        super().__init__("mariadb", refuses_root=True)
        self._program = program
        self._options = options
        self._begin = self.directory / "begin.sql"
        self._begin.write_text("CREATE DATABASE IF NOT EXISTS sessions;\n")
        self._begin.chmod(0o644)
        data, scripts = f"--datadir={self.directory / 'data'}", "mariadb-install-db"
        # A starting server removes the temporary tables of all servers in its directory.
        apart = f"--tmpdir={self.directory}"
        normal = "--auth-root-authentication-method=normal"
        self.run([scripts, "--no-defaults", data, "--skip-test-db", normal, apart, "--skip-name-resolve"])

    @property
    def url(self) -> str:
        return self.url_through(self.port)

    def url_through(self, port: int, database: str = "sessions") -> str:
        """The URL of a database through a port of the server or of a proxy."""
        return f"mysql+asyncmy://root@127.0.0.1:{port}/{database}"

    def start(self, *options: str) -> None:
        """Return when it accepts connections."""
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
        self.launch(command, ready=b"ready for connections")


@contextmanager
def mariadb_server() -> Iterator[MariadbServer]:
    """Run a server; skips the test if the program is missing."""
    server = MariadbServer(needed(installed(), "mariadbd", INSTALL))
    try:
        server.start()
        yield server
    finally:
        server.remove()
