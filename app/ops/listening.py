"""Checks that an address is free, and ends this process with its parent."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import socket
import sys
from typing import Final

__all__ = ("address_problem", "end_with_parent")

_PR_SET_PDEATHSIG: Final = 1


def address_problem(host: str, port: int, again: str) -> str | None:
    """Return in one line why `host` and `port` cannot be used, or None. `again` is the command to suggest."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return f"the host {host!r} is unknown"
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # Without SO_REUSEPORT, which the server itself uses: two servers would silently share the port.
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} on {host} is in use; stop the other program, or choose another port: {again} {port + 1}"
            return f"cannot listen on {host}:{port}: {error.strerror}"
    return None


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing).

    Killed, not terminated: a Granian worker ignores a signal before it serves, and a killed server has no clean end anyway.
    """
    if sys.platform != "linux":
        return
    started_by = multiprocessing.parent_process()
    parent = started_by.pid if started_by else os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before this call; then no signal follows.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
