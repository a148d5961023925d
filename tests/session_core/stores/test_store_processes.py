"""Guarantees that only real processes can break: no lost write, no exceeded limit, no claim won twice, no partial rotation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_core.stores.base import Entry, SessionIndex
from session_core.stores.opening import open_store

WORKER = Path(__file__).with_name("store_worker.py")
ROOT = WORKER.parents[3]
FOREVER = 2**52

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A shared store that is not open yet."""
    if request.param == "postgres":
        yield request.getfixturevalue("database")
    elif request.param == "mariadb":
        yield request.getfixturevalue("mariadb_url")
    else:
        yield f"sqlite:///{tmp_path}/sessions.db"


class Workers:
    """A process that has imported everything and starts others on demand."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._commands, self._lines = process.stdin, process.stdout

    def begin(self, url: str, work: str, argument: str, processes: int) -> None:
        self._commands.write(json.dumps([url, work, argument, processes]) + "\n")
        self._commands.flush()

    def until_all_ended(self, *, well: bool = True) -> Iterator[tuple[str, str]]:
        """Yield each process id with a line of its output, until all have ended. The line is empty at the start of a process."""
        for line in self._lines:
            who, what, *rest = line.strip().split(" ", 2)
            if who == "ended":
                assert not well or not any(json.loads(line.removeprefix("ended ")))
                return
            yield who, rest[0] if what == "said" else ""
        pytest.fail("the workers are gone")

    def said(self) -> list[tuple[str, str]]:
        """The output of the processes until all have ended successfully."""
        return [(who, text) for who, text in self.until_all_ended() if text]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(WORKER)]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        yield Workers(process)
        process.kill()


async def test_no_increment_of_several_processes_is_lost(url: str, workers: Workers) -> None:
    workers.begin(url, "increment", "40", processes=3)
    assert [text for _, text in workers.said()] == ["40"] * 3
    store = open_store(url)
    await store.open()
    stored = await store.load("counter")
    await store.close()
    assert stored is not None
    assert (stored.entry.data, stored.version) == (b"120", 121)


async def test_logins_in_several_processes_never_exceed_the_limit(url: str, workers: Workers) -> None:
    workers.begin(url, "log_in", "20", processes=3)
    lines = [text.split() for _, text in workers.said()]
    store = open_store(url)
    await store.open()
    alive = [stored.key for stored in await store.find(SessionIndex(user="user"))]
    await store.close()
    assert len(alive) == 3
    begun = sorted(key for what, key in lines if what == "begun")
    assert sorted([*alive, *(key for what, key in lines if what == "ended")]) == begun


async def test_each_claim_is_won_by_one_process(url: str, workers: Workers) -> None:
    workers.begin(url, "claim", "60", processes=3)
    assert sorted(int(name) for _, name in workers.said()) == list(range(60))


async def test_a_kill_during_rotation_leaves_exactly_one_key(url: str, workers: Workers) -> None:
    """Thirty kills at arbitrary moments: when the parent has read a number of lines."""
    store = open_store(url)
    await store.open()
    await store.create("0", Entry(b"", FOREVER, "user", "op"))
    alive = "0"
    for kill in range(30):
        workers.begin(url, "rotate", alive, processes=1)
        keys = [alive]
        for who, text in workers.until_all_ended(well=False):
            if text:
                keys.append(text)
            if len(keys) == 2 + kill % 10:
                os.kill(int(who), signal.SIGKILL)
        live = [key for key in keys if await store.load(key) is not None]
        assert len(live) == 1
        alive = live[0]
        assert [stored.key for stored in await store.find(SessionIndex(user="user"))] == live
    assert await store.delete("0") == (alive,)
    assert [stored async for stored in store.scan()] == []
    await store.close()
