"""An ASGI application of these tests on a real server, in a separate process."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.app.processes import ROOT, clean_environment
from tests.support.child_process import end_with_parent
from tests.support.ports import free_port

__all__ = ("SERVERS", "serving", "wait_for_answer")

SERVERS: Final = {"granian": ("granian", "--interface", "asgi", "--no-access-log"), "uvicorn": ("uvicorn", "--no-access-log")}


@contextmanager
def serving(target: str, server: str = "granian", **environment: str) -> Iterator[str]:
    """Serve the application `module:name` during the block; yields its address. It must respond to `/public`."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *SERVERS[server], "--host", "127.0.0.1", "--port", str(port), target],
        cwd=ROOT,
        env={**clean_environment(), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )
    try:
        wait_for_answer(process, f"http://127.0.0.1:{port}/public")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def wait_for_answer(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "nothing answers"
            time.sleep(0.05)
        else:
            return
