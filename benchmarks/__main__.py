"""`python -m benchmarks`: runs the benchmarks and prints the results; a full run also writes docs/benchmarks.md and its chart."""

from __future__ import annotations

import argparse
import logging
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from benchmarks.chart import draw
from benchmarks.machine import machine_facts
from benchmarks.report import page, summary
from benchmarks.results import Results
from benchmarks.rounds import Engines, measure_commands, run_fresh_pairs, run_rounds, run_turns, run_waiting, serve_all
from benchmarks.scale import measure_scale
from benchmarks.servers import ROOT, Launched, redis_server, stack_environment
from benchmarks.sockets import allow_sockets, measure_sockets
from benchmarks.stacks import BARE, OURS_POSTGRESQL, OURS_REDIS, STACKS
from benchmarks.sweeping import measure_sweep
from benchmarks.works import SESSIONS, Amount, Served, log_in
from tests.support.postgres_server import PostgresServer, installed

_PAGE: Final = "benchmarks.md"
_CHART: Final = "assets/benchmarks.svg"


@dataclass(frozen=True)
class _Plan:
    rounds: int
    """Rounds with one set of server processes."""
    turns: int
    """Turns with one set of server processes."""
    fresh_pairs: tuple[int, int]
    """How many pairs of new processes, and the turns of each pair."""
    sets: int
    """How often all servers are restarted, so that no figure depends on a single process."""
    amount: Amount
    sizes: tuple[int, ...]
    rows: int
    sweep_seconds: float
    warm_up: bool


_FULL: Final = _Plan(3, 60, (6, 14), 3, Amount(seconds=0.1, increments=480), (10_000, 1_000_000), 100_000, 3.0, warm_up=True)
_QUICK: Final = _Plan(1, 2, (1, 2), 1, Amount(seconds=0.1, increments=320), (500, 2_000), 2_000, 0.3, warm_up=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks of the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    begin = time.monotonic()
    plan = _QUICK if options.quick else _FULL
    keep: Path | None = options.keep
    stacks = [stack for stack in STACKS if not options.only or stack.name in options.only]
    results = _kept(keep) or Results(datetime.now(tz=UTC).date().isoformat(), 0, plan.amount.seconds, {}, stacks)
    if options.part in {None, "stacks"}:
        measure_stacks(plan, options.rounds or plan.rounds * plan.sets, results)
    if options.part == "scale" or (options.part is None and not options.only):
        _measure_scale(plan, results)
    if options.part == "sweep" or (options.part is None and not options.only):
        _measure_sweep(plan, results)
    if options.part == "sockets" or (options.part is None and not options.only):
        _measure_sockets(results)
    if keep is not None:
        keep.write_bytes(pickle.dumps(results))
    print(summary(results))
    print(f"{time.monotonic() - begin:.0f} seconds")
    folder: Path | None = options.output
    if folder is None and not (options.quick or options.only or options.part):
        folder = ROOT / "docs"
    if folder is not None:
        (folder / _CHART).parent.mkdir(parents=True, exist_ok=True)
        (folder / _CHART).write_text(draw(results), encoding="utf-8")
        (folder / _PAGE).write_text(page(results, _CHART), encoding="utf-8")
    return 0


def measure_stacks(plan: _Plan, rounds: int, results: Results) -> None:
    """Run every stack for this many rounds; the servers are restarted for each set of rounds."""
    sets = min(plan.sets, rounds)
    for number in range(sets):
        share = range(number * rounds // sets, (number + 1) * rounds // sets)
        _measure_set(plan, range(results.rounds, results.rounds + len(share)), results)
        results.rounds += len(share)


def _measure_set(plan: _Plan, rounds: range, results: Results) -> None:
    """Start all servers, measure these rounds, and stop the servers."""
    stacks = results.stacks
    results.left_out.clear()
    with _engines(postgresql=any(stack.engine == "postgresql" for stack in stacks)) as engines:
        results.machine = machine_facts(engines.redis, engines.directory, postgresql=engines.postgresql is not None)
        _say(f"starting the servers of {len(stacks)} stacks")
        with serve_all(stacks, engines, results, _say) as served:
            measure_commands(served, engines, results)
            run_rounds(served, plan.amount, rounds, results, _say, warm_up=plan.warm_up)
            run_waiting(served, plan.amount, results)
            run_turns(served, plan.turns, results, _say)
            _say(f"{plan.fresh_pairs[1]} turns of the page without session, {plan.fresh_pairs[0]} times")
            run_fresh_pairs(stacks, engines, *plan.fresh_pairs, results)


def _measure_scale(plan: _Plan, results: Results) -> None:
    with _engines(postgresql=True) as engines:
        measure_scale(engines, plan.sizes, results, _say)


def _measure_sweep(plan: _Plan, results: Results) -> None:
    with _engines(postgresql=True) as engines, serve_all([OURS_POSTGRESQL], engines, results, _say) as served:
        if served and engines.postgresql is not None:
            _say("sweeping")
            measure_sweep(served[0], engines.postgresql, plan.rows, plan.sweep_seconds, results)


def _measure_sockets(results: Results) -> None:
    allow_sockets()
    for stack in (BARE, OURS_REDIS):
        with _engines(postgresql=False) as engines:
            environment = stack_environment(stack, 0, engines.directory, engines.redis.port, "")
            server = Launched(stack, environment, engines.directory, websockets=True)
            try:
                server.wait()
                served = Served(stack, [server.port])
                served.cookies = log_in(served, SESSIONS)
                measure_sockets(served, server.pid, results, _say)
            finally:
                server.stop()


def _kept(path: Path | None) -> Results | None:
    """The results of earlier runs."""
    if path is None or not path.exists():
        return None
    found: Results = pickle.loads(path.read_bytes())
    return found


@contextmanager
def _engines(*, postgresql: bool) -> Iterator[Engines]:
    """Empty servers, and a directory readable by PostgreSQL's user when running as root."""
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as directory,
        redis_server() as redis,
        _postgresql(wanted=postgresql) as url,
    ):
        yield Engines(Path(directory), redis, url)


@contextmanager
def _postgresql(*, wanted: bool) -> Iterator[str | None]:
    package = installed() if wanted else None
    if package is None:
        yield None
        return
    server = PostgresServer(package)
    try:
        server.start("-c", "fsync=on")
        yield server.url
    finally:
        server.remove()


def _say(text: str) -> None:
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="just bench", description="Measure the sessions beside their peers.")
    names = [stack.name for stack in STACKS]
    parser.add_argument("--quick", action="store_true", help="check that everything runs; the figures mean nothing")
    parser.add_argument("--only", nargs="+", default=(), choices=names, metavar="NAME", help=f"some stacks of {', '.join(names)}")
    parser.add_argument("--part", choices=("stacks", "scale", "sweep", "sockets"), help="one part of the whole")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add to what FILE has of earlier runs; a pickle: only your own")
    parser.add_argument("--rounds", type=_positive, help=f"how many rounds (default: {_FULL.rounds * _FULL.sets})")
    parser.add_argument("--output", type=Path, help=f"write {_PAGE} and {_CHART} into this folder")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is no number of rounds; a good example: 5"
        raise argparse.ArgumentTypeError(message)
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
