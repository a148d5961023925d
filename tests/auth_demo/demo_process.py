"""Runs the real `demo` command in its own directory, on free ports, and stops it with SIGINT."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.app.processes import clean_environment
from tests.support.ports import free_ports

DEMO = (sys.executable, "-X", "faulthandler", "-c", "import sys; from auth_demo.demo import main; sys.exit(main())")
PATIENT_NODES = """
from auth_demo.cluster import cluster, node
node._SETTINGS = node._SETTINGS.replace(f"cluster-node-timeout {node.NODE_TIMEOUT_MS}", "cluster-node-timeout 3000")
cluster._STORE_SECONDS = 2
"""
"""On a busy machine a server may wait for the processor; it must not count as dead."""
DEMO_OF_CLUSTER = (*DEMO[:-1], f"import sys\nfrom auth_demo.demo import main{PATIENT_NODES}sys.exit(main())")


class Demo:
    """A running demo."""

    def __init__(self, process: subprocess.Popen[str], port: int, op_port: int) -> None:
        self.process = process
        self.port = port
        self.op_port = op_port
        self.app_url = f"http://localhost:{port}"
        self.issuer = f"http://127.0.0.1:{op_port}"
        self.cookie = f"session-{port}"

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal and wait; return exit code, output and errors."""
        self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # prints what each thread does
            out, err = self.process.communicate()
            message = f"the demo did not stop:\n{out}\n{err}"
            raise AssertionError(message) from None
        return self.process.returncode, out, err


def run_demo(
    directory: Path, *arguments: str, timeout: float = 200, launcher: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command until it exits."""
    return subprocess.run(
        [*(launcher or (DEMO_OF_CLUSTER if "--cluster" in arguments else DEMO)), *arguments],
        cwd=directory,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def start_demo(
    directory: Path, arguments: Sequence[str] = (), launcher: Sequence[str] = (), ports: tuple[int, int] | None = None
) -> Demo:
    """Start the command and return when its first page responds."""
    port, op_port = ports or free_ports()
    launcher = launcher or (DEMO_OF_CLUSTER if "--cluster" in arguments else DEMO)
    process = subprocess.Popen(
        [*launcher, "--no-browser", "--port", str(port), "--op-port", str(op_port), *arguments],
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    demo = Demo(process, port, op_port)
    deadline = time.monotonic() + 120  # six servers on a busy machine
    while process.poll() is None and time.monotonic() < deadline:
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
def running_demo(directory: Path, *arguments: str, ports: tuple[int, int] | None = None) -> Iterator[Demo]:
    """A demo that runs during the block."""
    demo = start_demo(directory, arguments, ports=ports)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.stop()
