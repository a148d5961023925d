"""Measures a session's cost in Redis: commands and bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from typing import Final

import redis

__all__ = ("bytes_in", "commands_of")

_MARK: Final = "the-end-of-what-is-watched"


def commands_of(port: int, act: Callable[[], object]) -> int:
    """The number of commands sent to the server while `act` runs, without those inside scripts, which cost no round trip."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as watcher:
        watcher.sendall(b"MONITOR\r\n")
        seen = watcher.recv(5)
        act()
        with closing(redis.Redis(port=port)) as other:
            other.echo(_MARK)
        while _MARK.encode() not in seen:
            seen += watcher.recv(65536)
    own = (b'"ECHO"', b'"HELLO"', b'"CLIENT"')  # of the connection that ends the watch, and of any other that starts
    lines = [line for line in seen.split(b"\r\n") if line.startswith(b"+") and b"[" in line]
    return sum(1 for line in lines if b" lua]" not in line and not any(name in line for name in own))


def bytes_in(port: int, database: int) -> int:
    """The memory of all keys of a database by `MEMORY USAGE`."""
    client = redis.Redis(port=port, db=database)
    with closing(client), client.pipeline(transaction=False) as pipeline:
        for name in client.scan_iter(count=1000):
            pipeline.memory_usage(name, samples=0)
        return sum(size or 0 for size in pipeline.execute())
