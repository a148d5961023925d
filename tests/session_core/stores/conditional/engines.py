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

from tests.support.freezing import freeze
from tests.support.ports import free_port
from tests.support.redis_servers import end_with_parent

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
        """Return a word that no other test has, for a prefix of its own."""
        return f"t{os.getpid()}-{next(_numbers)}"


@contextmanager
def _started(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, preexec_fn=end_with_parent, **options) as process:  # type: ignore[call-overload] # noqa: PLW1509
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def memcached_server(*options: str) -> Iterator[EngineProcess]:
    """Run Debian's memcached, which says nothing when it listens: on a Unix socket that is there from then on."""
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
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.01)
        yield EngineProcess(process, f"127.0.0.1:{port}")


@pytest.fixture(scope="session")
def memcached() -> Iterator[EngineProcess]:
    """A Memcached that keeps what it is given."""
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
