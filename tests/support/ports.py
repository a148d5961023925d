"""Ports for the servers that tests and benchmarks start, reserved while this process runs."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

__all__ = ("free_port", "free_ports")

_held: Final[list[socket.socket]] = []


def free_port(beside: int = 0) -> int:
    """A port on loopback that nothing listens on, and that the system assigns to no other process.

    The same holds for the port that is `beside` above it.
    """
    while True:
        port = _hold(0)
        with suppress(OSError, OverflowError):
            if beside:
                _hold(port + beside)
            return port


def free_ports(count: int = 2) -> tuple[int, ...]:
    """Several such ports."""
    return tuple(free_port() for _ in range(count))


def _hold(port: int) -> int:
    # The socket stays bound as long as this process lives, but never listens. Otherwise two servers that start at once may get
    # the same port, and Granian (SO_REUSEPORT) would share it silently. SO_REUSEADDR, set after the bind, lets a server bind
    # this port by number; the system still assigns it to no other process.
    holder = socket.socket()
    try:
        holder.bind(("127.0.0.1", port))
    except (OSError, OverflowError):
        holder.close()
        raise
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.append(holder)
    return int(holder.getsockname()[1])
