"""How many files, and so connections, a process may have open."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ("FEW_CONNECTIONS", "connections_per_worker", "raise_open_files")

FEW_CONNECTIONS: Final = 4096
"""Below this the start logs a warning."""
_RESERVED: Final = 256
"""For what a worker opens beside its connections: databases, the provider, its own files."""
_MOST: Final = 100_000
_UNKNOWN: Final = 8192
"""Where the system has no such limit to ask for."""


def raise_open_files() -> int:
    """Raise this process's limit of open files, and that of its children, to the highest that it may set; return it."""
    if sys.platform == "win32":
        return _UNKNOWN
    import resource  # noqa: PLC0415 - not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST + _RESERVED if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS has a limit below the one that it tells
            return soft
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def connections_per_worker(open_files: int) -> int:
    """Return how many connections a worker can hold; nothing is left for any when it is not positive."""
    return min(open_files - _RESERVED, _MOST)
