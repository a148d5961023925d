"""Ends the servers of the demo's cluster when the demo is gone, and removes their files; a process of its own.

    python demo_cluster_guard.py DIRECTORY

It leads the process group that the servers belong to, and reads an input which only the demo holds open. A demo that is killed
closes it too, so no end of the demo leaves a server behind. Imports nothing of the project: it must start at once.
"""

import os
import shutil
import signal
import sys
from contextlib import suppress

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A closed terminal, or a program that cleans up: the servers must not lose their guard before the demo ends."""


def main() -> None:
    """Wait for the demo's end, then end the group."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    group = os.getpgrp()
    sys.stdin.buffer.read()
    if os.fork():
        return
    # Out of the group that is to be killed: the files are removed when no process writes them any more.
    os.setsid()
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
