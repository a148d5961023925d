"""Finds another Python on this machine: on PATH, by uv, or by pyenv, whose shims run only the chosen version."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator


def find_python(lowest: tuple[int, int]) -> str | None:
    """The path of an installed Python of this version or later; None without one."""
    check = f"import sys; sys.exit(sys.version_info < {lowest})"
    return next((path for path in _candidates(lowest) if _output(path, "-c", check) is not None), None)


def _candidates(lowest: tuple[int, int]) -> Iterator[str]:
    major, minor = lowest
    names = ("python3", *(f"python{major}.{later}" for later in range(minor, minor + 4)))
    yield from filter(None, map(shutil.which, names))
    if found := _output("uv", "python", "find", "--no-python-downloads", f">={major}.{minor}"):
        yield found.strip()
    for version in (_output("pyenv", "versions", "--bare") or "").split():
        if prefix := _output("pyenv", "prefix", version):
            yield f"{prefix.strip()}/bin/python"


def _output(*command: str) -> str | None:
    """What a command prints; None if it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
