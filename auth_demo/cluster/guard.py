"""Ends the servers of the demo's cluster after the demo, and removes their files; a separate process.

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
"""Signals of a closed terminal or a cleanup program are ignored: the guard must outlive the demo."""


def main() -> None:
    """Wait for the demo's end, then end the group."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    group = os.getpgrp()
    sys.stdin.buffer.read()
    if os.fork():
        return
    # Leave the group before killing it, then remove the files, which no process writes any more.
    os.setsid()
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
