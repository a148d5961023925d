"""Sweeps very many expired rows from a SQL database during requests, and reports the longest request.

`just bench` measures PostgreSQL; `uv run python -m benchmarks.sweeping [--rows N] [--engines NAME ...]` measures each installed
SQL database and nothing else. `--sweep URL` runs the sweep itself, in a separate process: it waits for a line on its input, then
removes the expired rows.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.client import Fixed, Lane, Outcome, counted, drive, exactly, request
from benchmarks.payload import DARK, MESSAGEPACK_BYTES, SECRET
from benchmarks.results import Results, Sweep
from benchmarks.servers import ROOT, Launched
from benchmarks.stacks import STACKS
from benchmarks.stacks.ours import AppSession
from benchmarks.works import Served, log_in
from session_core import SessionConfig, SessionPlugin
from session_core.stores.sql.mysql import MysqlLink
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.schema import sessions
from session_core.stores.sqlite.store import SqliteStore
from tests.support import mariadb_server, postgres_server

__all__ = ("longest_overlap", "measure_sweep")

Span: TypeAlias = tuple[int, int]
"""Start and end, in nanoseconds of a clock shared by all processes."""

_READERS: Final = 2
_WRITERS: Final = 2
_SLICE_SECONDS: Final = 0.25
_CHUNK: Final = 5000
_ENGINES: Final = ("sqlite", "postgresql", "mariadb")
# As installed, but with a log large enough for the inserted rows: InnoDB blocks all writers when it is full.
_MARIADB: Final = ("--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=128M", "--innodb-log-file-size=512M")


def measure_sweep(served: Served, url: str, rows: int, seconds: float, results: Results) -> None:
    """Measure the database at `url`, which `served` uses, and for `seconds` before and after the sweep."""
    asyncio.run(_insert_expired(url, rows))
    gc.freeze()  # a garbage collection of the client would look like a slow server
    lanes = _lanes(served)
    quiet = list(drive(lanes, [served.port], seconds=seconds).latencies)
    command = [sys.executable, "-m", "benchmarks.sweeping", "--sweep", url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sweep:
        if sweep.stdin is None or sweep.stdout is None:
            raise RuntimeError
        sweep.stdout.readline()
        sweep.stdin.write("go\n")
        sweep.stdin.flush()
        outcomes: list[Outcome] = []
        while sweep.poll() is None or not outcomes:
            outcomes.append(drive(lanes, [served.port], seconds=_SLICE_SECONDS))
        removed, took = (sweep.stdout.readline().split() + ["0"] * 2)[:2]
        steps = [(int(begin), int(end)) for begin, end in (line.split() for line in sweep.stdout)]
    if int(removed) < rows:
        msg = f"the sweep removed {removed!r} rows of {rows}"
        raise RuntimeError(msg)
    quiet += drive(lanes, [served.port], seconds=seconds).latencies
    asked = [(begin, begin + took) for outcome in outcomes for begin, took in zip(outcome.begins, outcome.latencies, strict=True)]
    longest = max(end - begin for begin, end in asked)
    results.sweep = Sweep(
        rows,
        float(took),
        len(asked),
        longest / 1e6,
        longest_overlap(asked, steps) / 1e6,
        max(quiet) / 1e6,
        max(end - begin for begin, end in steps) / 1e6,
    )


def longest_overlap(spans: Sequence[Span], others: Sequence[Span]) -> int:
    """The longest part of one span that is covered by `others`, which do not overlap."""
    ends = [end for _, end in others]
    most = 0
    for begin, end in spans:
        covered = 0
        for at in range(bisect_right(ends, begin), len(others)):
            other_begin, other_end = others[at]
            if other_begin >= end:
                break
            covered += min(end, other_end) - max(begin, other_begin)
        most = max(most, covered)
    return most


def _lanes(served: Served) -> list[Lane]:
    readers = [Fixed([request("GET", "/read", served.port, cookie)], exactly(DARK)) for cookie in served.cookies[:_READERS]]
    others = served.cookies[_READERS : _READERS + _WRITERS]
    return [*readers, *(Fixed([request("POST", "/increment", served.port, cookie)], counted) for cookie in others)]


async def _insert_expired(url: str, rows: int) -> None:
    engine = create_async_engine(url)
    expired = time.time_ns() // 1_000_000 - 60_000
    for first in range(0, rows, _CHUNK):
        values = [
            {
                "key": f"expired-{number}",
                "version": 1,
                "data": b"x" * MESSAGEPACK_BYTES,
                "expires_at": expired,
                "user_key": f"user-{number}",
                "op_session_key": f"op-{number}",
                "rank": expired,
            }
            for number in range(first, min(rows, first + _CHUNK))
        ]
        async with engine.begin() as connection:
            await connection.execute(insert(sessions), values)
    await engine.dispose()


async def _sweep(url: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    plugin = SessionPlugin(SessionConfig(AppSession, store=url, secrets=[SECRET]))
    await plugin.store.open()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    inner = plugin.store.inner
    statements = _timed_transactions(inner) if isinstance(inner, SqliteStore) else _timed_statements()
    begin = time.perf_counter()
    removed = await plugin.sessions.prune()
    print(removed, time.perf_counter() - begin)
    for began, ended in statements:
        print(began, ended)
    sys.stdout.flush()
    await plugin.store.close()


def _timed_statements() -> list[Span]:
    """A list to which every statement of this process is appended."""
    taken: list[Span] = []

    def timed(run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def run_timed(*arguments: Any) -> Any:  # noqa: ANN401 - of any of the methods below
            begun = time.perf_counter_ns()
            try:
                return await run(*arguments)
            finally:
                taken.append((begun, time.perf_counter_ns()))

        return run_timed

    for link in (PostgresqlLink, MysqlLink):
        for name in ("rows", "count", "script"):
            setattr(link, name, timed(getattr(link, name)))
    return taken


def _timed_transactions(store: SqliteStore) -> list[Span]:
    """The same for the embedded store: the times at which its transactions held the write lock."""
    writer = store._opened()[1]  # noqa: SLF001 - the library has no such hook
    taken: list[Span] = []
    begun: list[int] = []
    begin, commit = writer._begin, writer._commit  # noqa: SLF001 - likewise

    def timed_begin() -> bool:
        begun[:] = [time.perf_counter_ns()]
        return begin()

    def timed_commit(group: list[Any]) -> bool:
        done = commit(group)
        taken.append((begun[0], time.perf_counter_ns()))
        return done

    writer._begin, writer._commit = timed_begin, timed_commit  # type: ignore[method-assign]  # noqa: SLF001 - likewise
    return taken


@contextmanager
def _database(engine: str, directory: str) -> Iterator[str | None]:
    """The URL of a separate database, or None where it is not installed."""
    if engine == "sqlite":
        yield f"sqlite+aiosqlite:///{directory}/sessions.db"
        return
    server: postgres_server.PostgresServer | mariadb_server.MariadbServer | None = None
    if engine == "postgresql" and (package := postgres_server.installed()) is not None:
        server = postgres_server.PostgresServer(package)
        server.start("-c", "fsync=on")
    elif engine == "mariadb" and (program := mariadb_server.installed()) is not None:
        server = mariadb_server.MariadbServer(program, *_MARIADB)
        server.start()
    try:
        yield server.url if server is not None else None
    finally:
        if server is not None:
            server.remove()


def _measure_alone(engine: str, rows: int, seconds: float) -> str:
    """Return a row of the table."""
    stack = next(stack for stack in STACKS if stack.name == "postgresql")
    results = Results("", 1, seconds, {}, [stack])
    with tempfile.TemporaryDirectory(prefix="sweeping-") as directory, _database(engine, directory) as url:
        if url is None:
            return f"| {engine} | not installed |"
        server = Launched(stack, {"BENCH_STORE": url, "BENCH_DIRECTORY": directory}, Path(directory))
        try:
            server.wait()
            served = Served(stack, [server.port])
            served.cookies = log_in(served, _READERS + _WRITERS)
            measure_sweep(served, url, rows, seconds, results)
        finally:
            server.stop()
    found = results.sweep
    if found is None:
        raise RuntimeError
    sweep = f"{found.seconds:.1f} s | {found.longest_step:.1f} ms"
    requests = f"{found.answers} | {found.within:.1f} ms | {found.longest:.1f} ms | {found.longest_before:.1f} ms"
    return f"| {engine} | {found.rows} | {sweep} | {requests} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, or sweep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeping", description="The longest request during a sweep.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="without the sweep, before it and after it")
    parser.add_argument("--engines", nargs="+", default=_ENGINES, choices=_ENGINES, metavar="NAME")
    parser.add_argument("--sweep", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.sweep:
        asyncio.run(_sweep(options.sweep))
        return
    print(
        "| database | rows | sweep took | its longest statement | requests | within one request | longest | without the sweep |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for engine in options.engines:
        print(_measure_alone(engine, options.rows, options.seconds), flush=True)


if __name__ == "__main__":
    main()
