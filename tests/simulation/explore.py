"""Enumerates schedules, those with the fewest context switches first; replays one by its seed.

uv run just simulate                                     all with one switch and one fault
uv run just simulate '"login+login|0>1;3=lost_down"'     the schedule that a failing test has printed
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from structlog.testing import capture_logs

from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock
from tests.simulation.director import FAULTS, Plan
from tests.simulation.world import SCENARIOS, Outcome, Scenario, play

__all__ = ("MakeStore", "explore", "memory", "replay")

MakeStore: TypeAlias = Callable[[FakeClock], AbstractAsyncContextManager[Any]]
"""Opens an empty store."""


@asynccontextmanager
async def memory(clock: FakeClock) -> AsyncIterator[Any]:
    """A store in this process."""
    yield MemoryStore(clock=clock)


def plans(scenario: Scenario, plain: Outcome) -> Iterator[list[Plan]]:
    """Yield the plans with no switch, with one, and so on: without faults and with one fault at every call."""
    others = range(1, len(scenario.meet))
    starts: list[dict[int, int]] = [{}, *({0: actor} for actor in others)]
    calls = range(plain.calls + 4)
    yield [Plan(start, {}) for start in starts]
    yield [Plan(start, {call: fault}) for start in starts for call in calls for fault in FAULTS]
    switched = [
        {**start, at: actor} for start in starts for at in range(1, plain.decisions + 4) for actor in range(len(scenario.meet))
    ]
    yield [Plan(switch, {}) for switch in switched] if others else []
    yield [Plan(switch, {call: fault}) for switch in switched for call in calls for fault in FAULTS] if others else []


async def run(name: str, plan: Plan, make: MakeStore, *, watch_limit: bool = True) -> Outcome:
    """Run one schedule on an empty store."""
    clock = FakeClock()
    async with make(clock) as store:
        return await play(SCENARIOS[name], plan, store, clock, watch_limit=watch_limit)


async def explore(
    name: str, make: MakeStore, *, sample: int | None = None, levels: int = 4, watch_limit: bool = True
) -> tuple[int, list[str]]:
    """Return how many schedules were run, and the seeds of the first that broke a promise with what they broke.

    `sample`: how many of each level, chosen in the same way each time; all of them when None.
    """
    scenario, count, found = SCENARIOS[name], 0, []
    plain = await run(name, Plan(), make, watch_limit=watch_limit)
    for level, chosen in zip(range(levels), plans(scenario, plain), strict=False):
        if sample is not None and len(chosen) > sample:
            chosen = random.Random(f"{name}{level}").sample(chosen, sample)  # noqa: PLW2901 - the same each time
        for plan in chosen:
            outcome = await run(name, plan, make, watch_limit=watch_limit)
            count += 1
            if outcome.problem is not None:
                found.append(f"{name}|{plan}: {outcome.problem}")
                if len(found) > 2:
                    return count, found
        if found:
            break
    return count, found


async def replay(seed: str, make: MakeStore = memory) -> Outcome:
    """Run the schedule of a seed."""
    name, _, plan = seed.partition("|")
    return await run(name, Plan.parse(plan), make)


async def main(arguments: list[str]) -> int:
    """Replay what the command line says."""
    if arguments != ["--all"]:
        for seed in arguments:
            sys.stdout.write(f"{seed} -> {(await replay(seed)).problem or 'every promise was kept'}\n")
        return 0
    failed = 0
    for name in SCENARIOS:
        with capture_logs():
            count, found = await explore(name, memory)
        sys.stdout.write("\n  ".join([f"{name}: {count} schedules", *found]) + "\n")
        failed += bool(found)
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
