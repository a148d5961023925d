"""Finds the browsers' programs, which are Debian packages, and starts them so that none outlives its parent."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

import pytest

__all__ = ("find_program", "start_program", "stop_program")


def find_program(names: Sequence[str], *, label: str, package: str) -> str:
    """Return the path of a program; skips the test if missing, fails it with CI=true."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = f"{label} is missing; install it with: sudo apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def start_program(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    stderr: IO[Any] | int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[str]:
    """Start a program that the kernel ends with this process."""
    return subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        pass_fds=tuple(pass_fds),
        preexec_fn=_end_with_the_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no lock is taken in it
    )


def stop_program(process: subprocess.Popen[str]) -> None:
    """End a program that `start_program` started."""
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=60)


def _end_with_the_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
