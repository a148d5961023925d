"""Sweeps very many expired rows out of PostgreSQL while requests go on, and looks for the longest of them.

`python -m benchmarks.sweeping URL` is the sweep itself, in a process of its own: it waits for a line, then removes what has
expired.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from typing import Final

import structlog
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.client import Fixed, Lane, Outcome, counted, drive, exactly, request
from benchmarks.payload import DARK, MESSAGEPACK_BYTES, SECRET
from benchmarks.results import Results, Sweep
from benchmarks.servers import ROOT
from benchmarks.stacks.ours import AppSession
from benchmarks.works import Served
from session_core import SessionConfig, SessionPlugin
from session_core.stores.sql_schema import sessions

__all__ = ("measure_sweep",)

_READERS: Final = 2
_WRITERS: Final = 2
_SLICE_SECONDS: Final = 0.25
_CHUNK: Final = 5000


def measure_sweep(served: Served, url: str, rows: int, seconds: float, results: Results) -> None:
    """Measure on PostgreSQL at `url`, which `served` uses."""
    asyncio.run(_insert_expired(url, rows))
    lanes = _lanes(served)
    quiet = drive(lanes, [served.port], seconds=seconds)
    command = [sys.executable, "-m", "benchmarks.sweeping", url]
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
        removed, _, took = sweep.stdout.readline().partition(" ")
    if int(removed or 0) < rows:
        msg = f"the sweep removed {removed!r} rows of {rows}"
        raise RuntimeError(msg)
    longest = max(max(outcome.latencies) for outcome in outcomes) / 1e6
    answers = sum(outcome.answers for outcome in outcomes)
    results.sweep = Sweep(rows, float(took), answers, longest, max(quiet.latencies) / 1e6)


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
    begin = time.perf_counter()
    removed = await plugin.sessions.prune()
    print(removed, time.perf_counter() - begin, flush=True)
    await plugin.store.close()


if __name__ == "__main__":
    asyncio.run(_sweep(sys.argv[1]))
