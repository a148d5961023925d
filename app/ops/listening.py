"""Whether an address is free to listen on, and ending with the process that started this one."""

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
    """Return why `host` and `port` cannot be listened on, in one line; None when they can. `again` is the command to try."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return f"the host {host!r} is unknown"
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # Not SO_REUSEPORT, which the server itself uses: with it, two servers would share the port without a word.
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
    """Ask the kernel to end this process when the one that started it dies, however it dies (Linux; elsewhere nothing).

    Killed, not asked to stop: a Granian worker that is asked before it serves forgets it, and a server that was killed had no
    clean end anyway.
    """
    if sys.platform != "linux":
        return
    started_by = multiprocessing.parent_process()
    parent = started_by.pid if started_by else os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the request; then no signal follows.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
