"""The limit of open files, and so of connections, of a process."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ("FEW_CONNECTIONS", "connections_per_worker", "raise_open_files")

FEW_CONNECTIONS: Final = 4096
"""Below this the start logs a warning."""
_RESERVED: Final = 256
"""Files that a worker opens besides its connections: databases, the provider, its own files."""
_MOST: Final = 100_000
_UNKNOWN: Final = 8192
"""Used if the system has no such limit."""


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
    """Return how many connections a worker can have; zero or less if the limit is too low."""
    return min(open_files - _RESERVED, _MOST)
