"""Kills a process at each of its steps on the disk, one after another, and looks at what is left.

Run as a program: prints one JSON object per change of the file store, with the number of steps and the states found that are
neither the one before the change nor the one after it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from session_core.stores.base import Entry, SessionIndex
from session_core.stores.file.sessions import SessionFiles
from session_core.testing import FakeClock

FOREVER = 2**52
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock"}
# No power is cut here, so nothing has to reach a disk.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
KEYS = ("a", "b", "c", "new", "newest")


def entry(rank: int, *, user: str = "u") -> Entry:
    return Entry(b"data%d" % rank, FOREVER, user, "o", rank)


def prepare(files: SessionFiles) -> None:
    """Two sessions of a user, and one that was rotated twice."""
    files.open()
    files.create("a", entry(1), 0)
    files.create("b", entry(2), 0)
    files.create("c0", entry(3, user="v"), 0)
    files.rotate("c0", "c1", entry(3, user="v"), 1, FOREVER, 0)
    files.rotate("c1", "c", entry(3, user="v"), 1, FOREVER, 0)


CHANGES: dict[str, Callable[[SessionFiles], object]] = {
    "create": lambda files: files.create("new", entry(4), 0),
    "create_at_the_limit": lambda files: files.create("new", entry(4), 1),
    "replace": lambda files: files.replace("a", Entry(b"2", FOREVER, "w", None, 9), 1),
    "rotate": lambda files: files.rotate("a", "new", entry(5), 1, FOREVER, 0),
    "rotate_at_the_limit": lambda files: files.rotate("c", "newest", entry(5), 1, FOREVER, 1),
    "touch": lambda files: files.touch("a", FOREVER + 1),
    "delete": lambda files: files.delete("a"),
    "delete_of_an_old_key": lambda files: files.delete("c0"),
    "delete_by": lambda files: files.delete_by(SessionIndex(op_session="o"), None),
}


def state(files: SessionFiles) -> object:
    """All that can be seen. The records come first: looking at them must be enough to complete what was decided."""
    records = {key: stored and (stored.version, stored.entry) for key in KEYS for stored in [files.load(key)]}
    indexes = [SessionIndex(user=name) for name in "uvw"] + [SessionIndex(op_session="o")]
    return records, [sorted(stored.key for stored in files.find(index)) for index in indexes]


def killed_at(step: int, root: Path, change: Callable[[SessionFiles], object]) -> bool:
    """Make the change in a process that is killed before its step of that number; return whether it came so far."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in STEPS:
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        files = SessionFiles(root, FakeClock())
        sys.addaudithook(count)
        change(files)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def examine(name: str, change: Callable[[SessionFiles], object], template: Path) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        shutil.copytree(template, directory, dirs_exist_ok=True)
        files = SessionFiles(Path(directory), FakeClock())
        before = state(files)
        change(files)
        after = state(files)
    wrong, step, killed, seen = [], 0, True, set()
    while killed:
        with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
            shutil.copytree(template, directory, dirs_exist_ok=True)
            killed = killed_at(step, Path(directory), change)
            files = SessionFiles(Path(directory), FakeClock())
            found = state(files)
            seen.add("before" if found == before else "after" if found == after else "neither")
            if found not in (before, after):
                wrong.append(f"step {step}: {found}")
            # Nothing is in the way of later changes, and they leave nothing behind.
            files.delete_by(SessionIndex(op_session="o"), None)
            files.delete("a")
            files.clean()
            left = [path.name for part in ("users", "op_sessions", "journal") for path in Path(directory, part).iterdir()]
            if left or any(files.load(key) for key in KEYS):
                wrong.append(f"step {step}: left {left}")
        step += 1
    print(json.dumps({"change": name, "steps": step, "seen": sorted(seen), "wrong": wrong}), flush=True)  # noqa: T201


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=MEMORY) as template:
        prepare(SessionFiles(Path(template), FakeClock()))
        for name, change in CHANGES.items():
            examine(name, change, Path(template))
