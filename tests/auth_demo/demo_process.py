"""Runs the real `demo` command in a directory of its own, on free ports, and ends it as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_OURS = ("SESSION_", "OIDC_", "APP_", "DATABASE_", "TRUSTED_", "PUBLIC_", "LITESTAR_")
DEMO = (sys.executable, "-c", "import sys; from auth_demo.demo import main; sys.exit(main())")


class Demo:
    """A demo that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int, op_port: int) -> None:
        self.process = process
        self.port = port
        self.op_port = op_port
        self.app_url = f"http://localhost:{port}"
        self.issuer = f"http://127.0.0.1:{op_port}"

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal and wait; return exit code, output and errors."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


def free_ports(count: int = 2) -> list[int]:
    """Ports that nothing listens on now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def clean_environment() -> dict[str, str]:
    """The environment without our settings; imports come from this tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "PYTHONPATH": str(ROOT)}


def run_demo(directory: Path, *arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*DEMO, *arguments],
        cwd=directory,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def start_demo(directory: Path, arguments: Sequence[str] = (), launcher: Sequence[str] = DEMO) -> Demo:
    """Start the command and return when its first page is there."""
    port, op_port = free_ports()
    process = subprocess.Popen(
        [*launcher, "--no-browser", "--port", str(port), "--op-port", str(op_port), *arguments],
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    demo = Demo(process, port, op_port)
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{demo.app_url}/health/live", timeout=5):
                return demo
        except OSError:
            time.sleep(0.05)
    process.kill()
    out, err = process.communicate()
    message = f"the demo did not start:\n{out}\n{err}"
    raise AssertionError(message)


@contextmanager
def running_demo(directory: Path, *arguments: str) -> Iterator[Demo]:
    """A demo for as long as the block lasts."""
    demo = start_demo(directory, arguments)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.stop()
