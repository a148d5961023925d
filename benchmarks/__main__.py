"""`python -m benchmarks`: measures, prints, and in a full run writes docs/benchmarks.md and its chart."""

from __future__ import annotations

import argparse
import logging
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
from benchmarks.rounds import Engines, measure_commands, run_fresh_pairs, run_rounds, run_turns, serve_all
from benchmarks.scale import measure_scale
from benchmarks.servers import ROOT, redis_server
from benchmarks.stacks import STACKS, Stack
from benchmarks.sweeping import measure_sweep
from benchmarks.works import Amount
from tests.support.postgres_server import PostgresServer, installed

_PAGE: Final = "benchmarks.md"
_CHART: Final = "assets/benchmarks.svg"


@dataclass(frozen=True)
class _Plan:
    rounds: int
    """With one set of server processes."""
    turns: int
    """Likewise."""
    fresh_pairs: tuple[int, int]
    """Likewise: how many, and turns of each."""
    sets: int
    """How often all servers are started anew: no figure hangs on one process alone."""
    amount: Amount
    sizes: tuple[int, ...]
    rows: int
    sweep_seconds: float
    warm_up: bool


_FULL: Final = _Plan(3, 60, (6, 14), 3, Amount(seconds=0.1, increments=480), (10_000, 1_000_000), 100_000, 3.0, warm_up=True)
_QUICK: Final = _Plan(1, 2, (1, 2), 1, Amount(seconds=0.1, increments=320), (500, 2_000), 2_000, 0.3, warm_up=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; return the exit status."""
    options = _parser().parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    begin = time.monotonic()
    results = measure(_QUICK if options.quick else _FULL, options.only, options.rounds, extras=not options.only)
    print(summary(results))
    print(f"{time.monotonic() - begin:.0f} seconds")
    folder: Path | None = options.output
    if folder is None and not options.quick and not options.only:
        folder = ROOT / "docs"
    if folder is not None:
        (folder / _CHART).parent.mkdir(parents=True, exist_ok=True)
        (folder / _CHART).write_text(draw(results), encoding="utf-8")
        (folder / _PAGE).write_text(page(results, _CHART), encoding="utf-8")
    return 0


def measure(plan: _Plan, only: Sequence[str], rounds: int | None, *, extras: bool) -> Results:
    """Run everything; `extras` are the measurements that belong to one store alone."""
    stacks = [stack for stack in STACKS if not only or stack.name in only]
    total = rounds or plan.rounds * plan.sets
    results = Results(datetime.now(tz=UTC).date().isoformat(), total, plan.amount.seconds, {}, stacks)
    sets = min(plan.sets, total)
    for number in range(sets):
        share = range(number * total // sets, (number + 1) * total // sets)
        _measure_set(plan, stacks, share, results, sweep=extras and number == sets - 1)
    if extras:
        with redis_server() as redis:
            measure_scale(redis, plan.sizes, results, _say)
    return results


def _measure_set(plan: _Plan, stacks: Sequence[Stack], rounds: range, results: Results, *, sweep: bool) -> None:
    """Start all servers, measure the rounds of these numbers, and end the servers."""
    wants_postgresql = any(stack.engine == "postgresql" for stack in stacks)
    results.left_out.clear()
    # Readable for the user that PostgreSQL runs as where we are root.
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as directory,
        redis_server() as redis,
        _postgresql(wanted=wants_postgresql) as postgresql,
    ):
        results.machine = machine_facts(redis, postgresql=postgresql is not None)
        engines = Engines(Path(directory), redis, postgresql)
        _say(f"starting the servers of {len(stacks)} stacks")
        with serve_all(stacks, engines, results, _say) as served:
            measure_commands(served, engines, results)
            run_rounds(served, plan.amount, rounds, results, _say, warm_up=plan.warm_up)
            run_turns(served, plan.turns, results, _say)
            _say(f"{plan.fresh_pairs[1]} turns of the page without session, {plan.fresh_pairs[0]} times")
            run_fresh_pairs(stacks, engines, *plan.fresh_pairs, results)
            swept = next((one for one in served if one.stack.engine == "postgresql"), None)
            if sweep and swept is not None and postgresql is not None:
                _say("sweeping")
                measure_sweep(swept, postgresql, plan.rows, plan.sweep_seconds, results)


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
    parser.add_argument("--quick", action="store_true", help="a smoke of seconds: one short round, nothing written to docs/")
    parser.add_argument("--only", nargs="+", default=(), choices=names, metavar="NAME", help=f"some stacks of {', '.join(names)}")
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
