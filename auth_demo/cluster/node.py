"""One server of the demo's cluster: a process on loopback that can be killed and started again; independent of other nodes."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import redis
import redis.asyncio

__all__ = ("HOST", "NODE_TIMEOUT_MS", "ClusterNode", "NodeFailedError", "free_port_pairs")

HOST: Final = "127.0.0.1"
NODE_TIMEOUT_MS: Final = 1000
"""Milliseconds after which a silent node counts as dead. Short, because all nodes are on one machine."""
_ANSWER_SECONDS: Final = 5.0
_START_SECONDS: Final = 60.0
_PORTS: Final = range(17000, 32000)
"""Below the ports of outgoing connections: a restarted server must find its port free."""

_SETTINGS: Final = f"""\
bind {HOST}
daemonize no
cluster-enabled yes
cluster-node-timeout {NODE_TIMEOUT_MS}
cluster-config-file nodes.conf
# A server that is started again finds its sessions again.
appendonly yes
appendfsync everysec
save ""
# A record that was evicted would be a session that was lost.
maxmemory-policy noeviction
repl-diskless-sync-delay 0
shutdown-timeout 0
# Two thirds of the sessions do not care who replaces the primary of the others.
cluster-require-full-coverage no
"""


class NodeFailedError(Exception):
    """A server ended, or did not answer, during its start; the message has the end of its log."""


class ClusterNode:
    """A server. Its address and its files, including the cluster state, survive a kill."""

    def __init__(self, program: Path, directory: Path, ports: tuple[int, int], password: str) -> None:
        self.port, self.bus_port = ports
        self._program = program
        self._directory = directory / str(self.port)
        self._directory.mkdir(mode=0o700)
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        # The password is in a file, not on the command line, which every user of the machine can read.
        secrets = f"port {self.port}\ncluster-port {self.bus_port}\nrequirepass {password}\nmasterauth {password}\n"
        self._configuration = self._directory / "valkey.conf"
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(_SETTINGS + secrets, encoding="ascii")

    def __repr__(self) -> str:
        return f"ClusterNode({self.port})"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, group: int) -> None:
        """Start it in a process group; `wait` for its answer."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's program
                [self._program, self._configuration],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                process_group=group,
            )

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self, check: Callable[[], None]) -> None:
        """Return when it answers. Raises `NodeFailedError`, and what `check` raises: it is called before each attempt."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            check()
            try:
                self.ask("PING")
            except redis.RedisError as error:
                if not self.alive or time.monotonic() > deadline:
                    raise NodeFailedError(self._last_words()) from error
                time.sleep(0.01)
            else:
                return

    def ask(self, *command: str | int | bytes) -> Any:  # noqa: ANN401 - whatever the server says
        """Return the reply to one command, on a new connection. Raises `redis.RedisError`."""
        address = self._address()
        connection: Any = redis.Connection(**address, socket_timeout=_ANSWER_SECONDS)  # type: ignore[no-untyped-call] # redis-py's own
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def connection(self) -> redis.asyncio.Connection:
        """Return a connection for use in the event loop, not yet connected. It has no timeout: the caller sets one."""
        # With its `timeout` argument, redis-py sends through `asyncio.wait_for`, which in Python 3.11 may drop a cancellation:
        # a loop of commands would then not end.
        return redis.asyncio.Connection(**self._address(), socket_timeout=None, socket_connect_timeout=_ANSWER_SECONDS)

    def _address(self) -> dict[str, Any]:
        return {"host": HOST, "port": self.port, "password": self._password, "protocol": 2}

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = (self._directory / "log").read_text(encoding="utf-8", errors="replace").splitlines()
            return f"the server on port {self.port} did not start: {lines[-1] if lines else 'it said nothing'}"
        return f"the server on port {self.port} did not start"


def free_port_pairs(count: int) -> list[tuple[int, int]]:
    """Return ports that nothing listens on now, two for each node: for clients, and for the nodes among themselves."""
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((HOST, port))
                found.append(port)
            if len(found) == 2 * count:
                break
    return list(zip(found[::2], found[1::2], strict=True))
