"""Servers of engines with conditional writes: one of each for a test process, on loopback, ended with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.support.child_process import end_with_parent
from tests.support.freezing import freeze
from tests.support.node_packages import node_command
from tests.support.ports import free_port

_numbers = count()


class EngineProcess:
    """A server process on a port."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.address = address
        self._process = process

    def freeze(self) -> None:
        freeze(self._process.pid)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def name(self) -> str:
        """Return a name that no other test uses, for a separate prefix."""
        return f"t{os.getpid()}-{next(_numbers)}"


@contextmanager
def _started(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, preexec_fn=end_with_parent, **options) as process:  # type: ignore[call-overload] # noqa: PLW1509
        try:
            yield process
        finally:
            process.kill()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when the port accepts connections."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server takes no connections"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.02)
        else:
            return


@contextmanager
def memcached_server(*options: str) -> Iterator[EngineProcess]:
    """Run Debian's memcached."""
    program = shutil.which("memcached", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/bin", "/usr/sbin")))
    if program is None:
        message = "memcached is not installed: apt-get install memcached"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    port = free_port()
    command = [program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", *options]
    if os.geteuid() == 0:
        command += ["-u", "nobody"]
    with _started(command) as process:
        _wait_for(process, port)
        yield EngineProcess(process, f"127.0.0.1:{port}")


@pytest.fixture(scope="session")
def memcached() -> Iterator[EngineProcess]:
    """A Memcached that never evicts."""
    with memcached_server("-M", "-o", "slab_automove=0") as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[EngineProcess]:
    """DynamoDB and S3 of moto."""
    command = [sys.executable, str(Path(__file__).with_name("moto_server.py"))]
    with tempfile.TemporaryFile() as log, _started(command, stdout=subprocess.PIPE, stderr=log) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            log.seek(0)
            pytest.fail(log.read().decode(errors="replace")[-2000:])
        yield EngineProcess(process, f"http://127.0.0.1:{int(line)}")


_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of every Azurite, which its documentation names."""


@pytest.fixture(scope="session")
def azurite() -> Iterator[EngineProcess]:
    """Azure Table Storage of Azurite, as a connection string."""
    node, server = node_command(Path(__file__).with_name("azurite_server"))
    port = free_port()
    program = Path(server).parent / "node_modules" / "azurite" / "dist" / "src" / "table" / "main.js"
    options = ["--tableHost", "127.0.0.1", "--tablePort", str(port), "--inMemoryPersistence", "--silent"]
    with _started([node, str(program), *options], stdout=subprocess.DEVNULL) as process:
        _wait_for(process, port)
        address = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_AZURITE_KEY};"
        yield EngineProcess(process, f"{address}TableEndpoint=http://127.0.0.1:{port}/devstoreaccount1;")


@pytest.fixture(scope="session")
def secantusdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """A server with MongoDB's protocol, on MongoDB's storage engine, from the dependency group `interop`."""
    pytest.importorskip("secantus", reason="SecantusDB is not installed: uv run --group dev --group interop pytest")
    port = free_port()
    program = str(Path(sys.executable).with_name("secantusd-py"))
    options = ["--port", str(port), "--storage-path", str(tmp_path_factory.mktemp("secantusdb")), "--log-level", "ERROR"]
    with _started([program, *options], stdout=subprocess.DEVNULL) as process:
        _wait_for(process, port)
        yield EngineProcess(process, f"127.0.0.1:{port}")
