"""Enumerates schedules, those with the fewest context switches first; replays one by its seed.

uv run just simulate                                            all with one switch and one fault, many with more of both
uv run just simulate '"memory|login+login|0>1;3=lost_down"'     the schedule that a failing test has printed
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from structlog.testing import capture_logs

from session_core.stores.opening import open_store
from session_core.testing import FakeClock
from tests.simulation.director import FAULTS, Fault, Plan
from tests.simulation.world import SCENARIOS, Outcome, Scenario, play
from tests.support.redis_servers import cluster, needed_valkey, running

__all__ = ("ENGINES", "MEMORY", "ON_A_CLUSTER", "Engine", "engine", "explore", "on_a_server", "replay")

_MANY: Final = 1000
ENGINES: Final = ("memory", "sqlite", "valkey", "cluster")
ON_A_CLUSTER: Final = (
    "first login",
    "login+regenerate",
    "login+login",
    "login+login+regenerate",
    "login+regenerate+regenerate",
    "regenerate+revoke_all",
    "login+op_logout",
    "impersonate+revoke_all",
    "end_impersonation+update",
)
"""What takes a cluster several commands, each of which is a step."""


@dataclass
class Engine:
    """Where schedules run: `url` returns the address of an empty store for a number; `faults` can occur at each step."""

    name: str
    url: Callable[[int], str]
    faults: Sequence[Fault] = FAULTS
    _numbers: Iterator[int] = field(default_factory=count)

    @asynccontextmanager
    async def empty(self, clock: FakeClock) -> AsyncIterator[Any]:
        """Open an empty store."""
        store = open_store(self.url(next(self._numbers)), clock=clock)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


MEMORY: Final = Engine("memory", lambda _: "memory://")


def on_a_server(name: str, url: str) -> Engine:
    """A Redis server or cluster. A cluster refuses a command after its deadline, so `later` does not occur there."""
    in_time = [fault for fault in FAULTS if fault != "later_down"] if name == "cluster" else FAULTS
    # Each engine and each of its stores has a separate prefix.
    mark = f"{random.getrandbits(32):x}"
    return Engine(name, lambda number: f"{url}?prefix=s{mark}.{number}:", in_time)


@contextmanager
def engine(name: str) -> Iterator[Engine]:
    """Start the servers of a schedule."""
    match name:
        case "memory":
            yield MEMORY
        case "sqlite":
            with tempfile.TemporaryDirectory() as directory:
                yield Engine(name, lambda number: f"sqlite:///{directory}/{number}.db")
        case "valkey":
            with running(needed_valkey()) as server:
                yield on_a_server(name, server.url)
        case "cluster":
            with cluster(needed_valkey(), primaries=1, replicas=False) as servers:
                yield on_a_server(name, servers.url)
        case _:
            message = f"{name} is none of {', '.join(ENGINES)}"
            raise ValueError(message)


def plans(scenario: Scenario, plain: Outcome, faults: Sequence[Fault], chance: random.Random, many: int) -> Iterator[list[Plan]]:
    """Yield the plans with no switch, with one, and so on: without faults and with one fault at every call.

    Then `many` with two faults, with one switch and two faults, and with a switch at any decision.
    """
    others = range(1, len(scenario.meet))
    starts: list[dict[int, int]] = [{}, *({0: actor} for actor in others)]
    calls = range(plain.calls + 4)
    yield [Plan(start, {}) for start in starts]
    yield [Plan(start, {call: fault}) for start in starts for call in calls for fault in faults]
    switched = [
        {**start, at: actor} for start in starts for at in range(1, plain.decisions + 4) for actor in range(len(scenario.meet))
    ]
    yield [Plan(switch, {}) for switch in switched] if others else []
    yield [Plan(switch, {call: fault}) for switch in switched for call in calls for fault in faults] if others else []

    def two() -> dict[int, Fault]:
        return {call: chance.choice(faults) for call in chance.sample(calls, 2)}

    yield [Plan(chance.choice(starts), two()) for _ in range(many)]
    if others:
        yield [Plan(chance.choice(switched), two()) for _ in range(many)]
        actors = range(len(scenario.meet))
        yield [Plan({at: chance.choice(actors) for at in range(plain.decisions + 8)}, {}) for _ in range(many)]


async def run(name: str, plan: Plan, on: Engine) -> Outcome:
    """Run one schedule on an empty store."""
    clock = FakeClock()
    async with on.empty(clock) as store:
        return await play(SCENARIOS[name], plan, store, clock)


async def explore(name: str, on: Engine, *, sample: int | None = None, levels: int = 7) -> tuple[int, list[str]]:
    """Return the number of schedules run, and the seeds of the first failures with the violated guarantee.

    `sample`: how many of each level, chosen in the same way each time; when None all of them, or a thousand of the endless ones.
    """
    scenario, tried, found = SCENARIOS[name], 0, []
    chance = random.Random(name)
    plain = await run(name, Plan(), on)
    for _, chosen in zip(range(levels), plans(scenario, plain, on.faults, chance, sample or _MANY), strict=False):
        if sample is not None and len(chosen) > sample:
            chosen = chance.sample(chosen, sample)  # noqa: PLW2901 - the same each time
        for plan in chosen:
            outcome = await run(name, plan, on)
            tried += 1
            if outcome.problem is not None:
                found.append(f"{on.name}|{name}|{plan}: {outcome.problem}")
                if len(found) > 2:
                    return tried, found
        if found:
            break
    return tried, found


async def replay(seed: str, on: Engine) -> Outcome:
    """Run the schedule of a seed."""
    _, name, plan = seed.split("|")
    return await run(name, Plan.parse(plan), on)


def main(arguments: list[str]) -> int:
    """Replay the seed of the command line, or explore all schedules."""
    if arguments != ["--all"]:
        for seed in arguments:
            with engine(seed.partition("|")[0]) as on, capture_logs():
                problem = asyncio.run(replay(seed, on)).problem
            sys.stdout.write(f"{seed} -> {problem or 'every promise was kept'}\n")
        return 0
    failed = 0
    for kind in ENGINES:
        with engine(kind) as on, capture_logs():
            for name in ON_A_CLUSTER if kind == "cluster" else SCENARIOS:
                tried, found = asyncio.run(explore(name, on, sample=None if kind == "memory" else _MANY // 5))
                sys.stdout.write("\n  ".join([f"{kind}, {name}: {tried} schedules", *found]) + "\n")
                failed += bool(found)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
