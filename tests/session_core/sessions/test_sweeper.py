"""Expired records are removed by one of the processes that share the store, and by another when that one dies."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path

import pytest

from session_core import StoreUnavailableError
from session_core.sessions.manager import SessionManager
from session_core.sessions.sweeper import Sweeper
from session_core.stores.base import Entry
from session_core.stores.memory import MemoryStore
from session_core.stores.opening import open_store
from session_core.testing import FakeClock
from tests.app.processes import ROOT, clean_environment
from tests.support.sessions import make_app, plugin_in

pytestmark = pytest.mark.anyio


def manager(store: MemoryStore, clock: FakeClock) -> SessionManager:
    return plugin_in(make_app(store=store, clock=clock)).sessions


async def test_one_of_many_sweepers_sweeps_per_interval(clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    sweepers = [Sweeper(manager(store, clock), interval=300) for _ in range(12)]
    for _ in range(3):
        turns = await asyncio.gather(*(sweeper.sweep_once() for sweeper in sweepers))
        assert sum(turn is not None for turn in turns) == 1
        clock.advance(seconds=150)
        assert sum([await sweeper.sweep_once() is not None for sweeper in sweepers]) <= 1
        clock.advance(seconds=150)


async def test_a_failed_sweep_is_retried_in_the_next_interval(clock: FakeClock) -> None:
    class Failing(MemoryStore):
        fails = True

        async def delete_expired(self, limit: int = 1000) -> int:
            if self.fails:
                raise StoreUnavailableError
            return await super().delete_expired(limit)

    store = Failing(clock=clock)
    await store.create("gone", Entry(b"", clock.now() + 1))
    clock.advance(seconds=1)
    first, second = (Sweeper(manager(store, clock), interval=60) for _ in range(2))
    with pytest.raises(StoreUnavailableError):
        await first.sweep_once()
    store.fails = False
    assert await second.sweep_once() is None
    clock.advance(seconds=60)
    assert await second.sweep_once() == 1


async def test_a_node_whose_clock_is_behind_finds_the_interval_claimed(clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    behind = FakeClock(clock.now() - 300_000)
    assert await Sweeper(manager(store, clock), interval=300).sweep_once() is not None
    for each in (clock, behind):
        each.advance(seconds=300)
    assert await Sweeper(manager(store, behind), interval=300).sweep_once() is None


async def test_requests_get_at_least_half_of_the_stores_time(clock: FakeClock) -> None:
    class Slow(MemoryStore):
        batches = 4

        async def delete_expired(self, limit: int = 1000) -> int:
            await asyncio.sleep(0.02)
            self.batches -= 1
            return limit if self.batches else 0

    began = time.perf_counter()
    assert await manager(Slow(clock=clock), clock).prune(batch=10) == 30
    assert time.perf_counter() - began >= 7 * 0.02


async def begin(url: str, interval: float) -> Process:
    command = [sys.executable, str(Path(__file__).parents[2] / "support" / "sweep_worker.py"), url, str(interval)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=clean_environment(), stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    return process


async def test_three_nodes_of_four_workers_sweep_once_per_interval_also_when_nodes_die(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    store = open_store(url)
    await store.open()
    now = time.time_ns() // 1_000_000
    for number in range(20):
        await store.create(f"expired{number}", Entry(b"", now + 1))
    # One second, for workers on a busy machine; the counts do not depend on it.
    nodes = [await begin(url, 1.0) for _ in range(3)]
    sweeps: Counter[bytes] = Counter()
    removed = 0

    async def read(node: Process) -> None:
        nonlocal removed
        assert node.stdout is not None
        async for line in node.stdout:
            match line.split():  # log lines appear in between
                case [b"won", turn]:
                    sweeps[turn] += 1
                case [b"removed", count]:
                    removed += int(count)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(read(node))
        for alive in (3, 2, 1):
            seen = len(sweeps)
            while len(sweeps) < seen + 3:  # noqa: ASYNC110 - other processes sweep
                await asyncio.sleep(0.01)
            nodes[alive - 1].kill()
    for node in nodes:
        await node.wait()
    await store.close()
    assert set(sweeps.values()) == {1}
    assert removed >= 20
