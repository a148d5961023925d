"""A real unstorage server from npm, on loopback, ended with its parent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.child_process import end_with_parent
from tests.support.node_packages import node_command
from tests.support.ports import free_port

_SOURCE = Path(__file__).parent / "unstorage_server"


class UnstorageServer:
    """One server process on its own port, which a restart keeps; the files below `directory` stay."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self.port = free_port()
        self._command = [*command, str(self.port), str(directory)]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, path: str, *, token: str = "", query: str = "") -> str:
        user = f":{token}@" if token else ""
        return f"http://{user}127.0.0.1:{self.port}/{path}{query and '?' + query}"

    def start(self) -> None:
        """Return when it listens."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )
        assert self._process.stdout is not None
        with self._process.stdout as output:
            assert output.readline() == b"ready\n", "the unstorage server did not start"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def unstorage_command() -> list[str]:
    """The command line that starts the server, up to its arguments."""
    return node_command(_SOURCE)


@pytest.fixture(scope="session")
def _unstorage(unstorage_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnstorageServer]:
    with unstorage_server(unstorage_command, tmp_path_factory.mktemp("unstorage")) as server:
        yield server


@contextmanager
def unstorage_server(command: list[str], directory: Path) -> Iterator[UnstorageServer]:
    """Run a server."""
    server = UnstorageServer(command, directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()
