"""Lists and ends the 10,000 sessions of one user while another user's session is read, and reports the longest wait.

`uv run python -m benchmarks.many_sessions [--sessions N] [--engines NAME ...]` measures each installed store. The
other user's session is read twice: in the same process, which shows delays of the event loop, and in a separate process (`--read
URL KEY`), which shows delays of the store.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from benchmarks.payload import ISSUER, SECRET
from benchmarks.servers import ROOT, redis_server
from benchmarks.stacks.ours import AppSession
from session_core import Device, Identity, SessionConfig, SessionPlugin
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry, SessionStore
from session_core.stores.opening import open_store
from tests.support import mariadb_server, postgres_server
from tests.support.redis_servers import cluster, needed_valkey

__all__ = ("main",)

_ENGINES: Final = ("memory", "sqlite", "redis", "cluster", "postgresql", "mariadb")
_MANY: Final = Identity(issuer=ISSUER, subject="many")
_OTHER: Final = Identity(issuer=ISSUER, subject="other")
_AT_ONCE: Final = 200
_QUIET_SECONDS: Final = 1.0
_HOUR_MS: Final = 3_600_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--engines", nargs="+", choices=_ENGINES, default=_ENGINES)
    parser.add_argument("--read", nargs=2, metavar=("URL", "KEY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if options.read:
        asyncio.run(_read(*options.read))
        return 0
    print("longest wait of another user, in ms:                        in the same process    in another one    of reads")
    for engine in options.engines:
        with _url(engine) as url:
            if url is None:
                print(f"{engine}: not installed")
            else:
                asyncio.run(_measure(engine, url, options.sessions))
    return 0


async def _measure(engine: str, url: str, number: int) -> None:
    config = SessionConfig(AppSession, store=url, secrets=[SECRET], max_sessions_per_user=number, sweep_interval=0)
    plugin = SessionPlugin(config)
    await plugin.store.open()
    try:
        key = session_key(new_session_id())
        await plugin.store.create(key, _entry(_OTHER))
        await _fill(plugin, number)
        data, device = plugin.lifecycle.codec.encode(AppSession()), Device()

        async def log_in() -> None:
            await plugin.lifecycle.begin(data, device=device, identity=_MANY)

        works: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("nothing", lambda: asyncio.sleep(_QUIET_SECONDS)),
            ("list them", lambda: plugin.sessions.list_for(_MANY)),
            ("log in at the limit", log_in),
            ("end them all", lambda: plugin.sessions.revoke_all(_MANY)),
        ]
        gc.collect()
        gc.freeze()  # as `serve` does
        gc.disable()
        with _reader(engine, url, key) as read_elsewhere:
            for name, work in works:
                waits: list[float] = []

                def note(begun: float, wait: float, waits: list[float] = waits) -> None:
                    del begun
                    waits.append(wait)

                reading = asyncio.create_task(_time_reads(plugin.store, key, note))
                await asyncio.sleep(0.1)
                waits.clear()
                begun = time.monotonic()
                await work()
                ended = time.monotonic()
                await asyncio.sleep(0.1)
                reading.cancel()
                others = read_elsewhere(begun, ended)
                longest = f"{1000 * max(others):15.1f}" if others else " " * 15
                took = f"{1000 * (ended - begun):7.0f} ms"
                print(
                    f"{engine:11} {name:20} {took:12} {1000 * max(waits):25.1f} {longest} {len(waits) + len(others):15,}",
                    flush=True,
                )
        gc.enable()
        gc.unfreeze()
    finally:
        await plugin.store.close()


async def _fill(plugin: SessionPlugin, number: int) -> None:
    for _ in range(0, number, _AT_ONCE):
        await asyncio.gather(*(plugin.store.create(session_key(new_session_id()), _entry(_MANY)) for _ in range(_AT_ONCE)))


def _entry(identity: Identity) -> Entry:
    now = time.time_ns() // 1_000_000
    return Entry(b"\x90" * 300, now + _HOUR_MS, identity.user_key, None, now)


async def _time_reads(store: SessionStore, key: str, note: Callable[[float, float], None]) -> None:
    """Read continuously; record the start and duration of each read."""
    while True:
        begun = time.monotonic()
        await store.load(key)
        note(begun, time.monotonic() - begun)
        await asyncio.sleep(0)


async def _read(url: str, key: str) -> None:
    """Run the other user in a separate process: print the start and duration of each read."""
    store = open_store(url)
    await store.open()
    gc.disable()
    await _time_reads(store, key, print)


@contextmanager
def _reader(engine: str, url: str, key: str) -> Iterator[Callable[[float, float], list[float]]]:
    """Read in a separate process; yields a function that returns the waits between two times. None for a local store."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "waits")
        command = [sys.executable, "-m", "benchmarks.many_sessions", "--read", url, key]
        with path.open("wb") as output:
            process = subprocess.Popen(["true"] if engine == "memory" else command, cwd=ROOT, stdout=output)

        def waits(begun: float, ended: float) -> list[float]:
            time.sleep(0.5)  # the output is written in blocks
            lines = (line.split() for line in path.read_text().rpartition("\n")[0].splitlines())
            return [float(wait) for at, wait in lines if begun <= float(at) + float(wait) and float(at) <= ended]

        try:
            while engine != "memory" and not path.stat().st_size:
                assert process.poll() is None, "the other process cannot read"
                time.sleep(0.05)
            yield waits
        finally:
            process.kill()
            process.wait()


@contextmanager
def _url(engine: str) -> Iterator[str | None]:
    match engine:
        case "memory":
            yield "memory://"
        case "sqlite":
            with tempfile.TemporaryDirectory() as directory:
                yield f"sqlite:///{Path(directory)}/sessions.db"
        case "redis":
            with redis_server() as server:
                yield server.url
        case "cluster":
            with cluster(needed_valkey(), replicas=False) as servers:
                yield servers.url
        case "postgresql":
            if (package := postgres_server.installed()) is None:
                yield None
                return
            database = postgres_server.PostgresServer(package)
            try:
                database.start()
                yield database.url
            finally:
                database.remove()
        case _:
            if (program := mariadb_server.installed()) is None:
                yield None
                return
            maria = mariadb_server.MariadbServer(program)
            try:
                maria.start()
                yield maria.url
            finally:
                maria.remove()


if __name__ == "__main__":
    sys.exit(main())
