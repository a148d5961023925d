"""Server processes of the tests: each in its own directory, with a log there, ended with its parent."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.support.freezing import freeze
from tests.support.ports import free_port

__all__ = ("SYSTEM_PATH", "ServerProcess", "end_with_parent", "needed")

SYSTEM_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
"""Debian keeps servers outside a user's PATH."""
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Make this process get a signal when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def needed(program: str | Path | None, name: str, install: str) -> Path:
    """Return the path of a program; skips the test if it is missing."""
    if program is None:
        assert not os.environ.get("CI"), f"{name} is not installed: {install}"
        pytest.skip(f"{name} is not installed: {install}")
    return Path(program)


class ServerProcess:
    """A server on its own port; `kill` and another `launch` keep port and data. `refuses_root`: as root it gets another user."""

    ended_by = signal.SIGKILL
    """What it gets when the test ends before it."""

    def __init__(self, name: str, *, port: int | None = None, refuses_root: bool = False) -> None:
        self.port = port or free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.user = "nobody" if refuses_root and os.geteuid() == 0 else None
        if self.user is not None:
            os.chown(self.directory, pwd.getpwnam(self.user).pw_uid, -1)
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, command: Sequence[str | Path], *, ready: bytes = b"") -> None:
        """Start it; return when it has logged `ready`."""
        log = self.directory / "log"
        with log.open("ab") as output:
            seen = output.tell()
            self._process = subprocess.Popen(
                command,
                user=self.user,
                cwd=self.directory,
                stdout=output,
                stderr=output,
                preexec_fn=partial(end_with_parent, self.ended_by),  # noqa: PLW1509
            )
        deadline = time.monotonic() + 90
        while ready not in log.read_bytes()[seen:]:
            self.check_running(deadline)
            time.sleep(0.02)

    def check_running(self, deadline: float) -> None:
        """Fail with the log when the process has ended, or when it is late."""
        late = self._running.poll() is not None or time.monotonic() > deadline
        assert not late, (self.directory / "log").read_text(errors="replace")

    def run(self, command: Sequence[str | Path]) -> None:
        """Run another program of the server to its end."""
        environment = {**os.environ, "PATH": SYSTEM_PATH}
        tried = subprocess.run(command, user=self.user, cwd=self.directory, env=environment, capture_output=True, check=False)
        assert tried.returncode == 0, (tried.stderr + tried.stdout).decode(errors="replace")

    def freeze(self) -> None:
        freeze(self._running.pid)

    def thaw(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Shut it down cleanly."""
        self._running.send_signal(number)
        self._running.wait(timeout=90)
        self._process = None

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        with suppress(OSError):
            shutil.rmtree(self.directory)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process
