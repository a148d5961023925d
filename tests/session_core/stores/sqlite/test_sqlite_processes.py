"""Several processes on one SQLite file, and the state left by a killed one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session_core.stores.base import Entry
from session_core.stores.sqlite.store import SqliteStore
from tests.support.opened_store import opened_store

pytestmark = pytest.mark.anyio
FOREVER = 2**52
PROCESS = Path(__file__).with_name("sqlite_process.py")
ROOT = PROCESS.parents[4]


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened_store(SqliteStore(path, timeout=60)) as store:
        yield store


def process(path: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROCESS), str(path), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found == [("ok",)]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_process_killed_at_the_commit_leaves_all_of_its_group_or_nothing(
    moment: str, store: SqliteStore, path: Path
) -> None:
    keys = [str(number) for number in range(10)]
    for key in (*keys, "old"):
        await store.create(key, Entry(b"old", FOREVER))
    with process(path, "die", moment) as dying:
        assert dying.wait(60) == -signal.SIGKILL
    stored = [await store.load(key) for key in (*keys, "old", "new")]
    found = [each and (each.version, each.entry.data) for each in stored]
    made = moment == "after"
    assert found == [(2, b"new") if made else (1, b"old")] * 10 + ([None, (1, b"new")] if made else [(1, b"old"), None])
    # Its lock was released, and others continue.
    assert await store.replace("0", Entry(b"x", FOREVER), version=2 if made else 1) == (3 if made else 2)
    assert is_sound(path)


async def test_processes_that_commit_groups_at_different_times_lose_nothing(store: SqliteStore, path: Path) -> None:
    sessions, times = 6, 30
    for number in range(sessions):
        await store.create(f"counter{number}", Entry(b"0", FOREVER))
    with process(path, "increment", sessions, 24, times, 0) as one, process(path, "increment", sessions, 5, times, 0.003) as two:
        for each in (one, two):
            assert each.stdout is not None
            assert each.stdout.readline() == "begins\n"
        for each in (one, two):
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        assert one.wait(120) == two.wait(120) == 0
    stored = [await store.load(f"counter{number}") for number in range(sessions)]
    counts = [(int(each.entry.data), each.version - 1) for each in stored if each]
    assert sum(count for count, _ in counts) == (24 + 5) * times
    assert all(count == versions for count, versions in counts)
    assert is_sound(path)


async def test_an_open_store_is_used_on_both_sides_of_a_fork(path: Path) -> None:
    """The child reopens the file, because connections, locks and thread belong to the parent."""
    with process(path, "fork") as forking:
        output, _ = forking.communicate(timeout=60)
    assert json.loads(output) == [0, 100]
    assert is_sound(path)
