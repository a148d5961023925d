"""Stops a process by SIGSTOP: its sockets stay open and nothing runs, as on an overloaded machine."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

__all__ = ("freeze",)

_STANDING = frozenset("TtZX")
"""Stopped, traced, or ended."""


def freeze(pid: int) -> None:
    """Stop a process; return when none of its threads runs, because the signal arrives asynchronously."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while not _states(pid) <= _STANDING:
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)


def _states(pid: int) -> set[str]:
    states: set[str] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            # After the name, which may contain any character.
            states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return states
