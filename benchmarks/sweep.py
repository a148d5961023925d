"""How long a request waits while expired sessions are swept: `uv run python benchmarks/sweep.py [--rows 100000] [--batch 100]`.

Fills each SQL database with expired rows and sweeps them with the same store, in the same process and event loop, that serves
requests meanwhile; a request loads a session and writes it. Prints the longest and the 99th percentile of the requests' times
without and with the sweep. PostgreSQL comes from a wheel; MariaDB is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from session_core.stores import sql
from session_core.stores.base import Entry
from session_core.stores.sql import SqlStore
from session_core.stores.sql_schema import sessions
from tests.stores import mariadb_server, postgres_server

FOREVER = 2**41
DATA = os.urandom(300)
CLIENTS = 4
QUIET_SECONDS = 15.0


async def fill(store: SqlStore, rows: int) -> None:
    """Insert expired sessions of a thousand users."""
    values = [
        {
            "key": os.urandom(24).hex(), "version": 1, "data": DATA, "expires_at": 1 + number, "user_key": f"user{number % 1000}",
            "op_session_key": f"op{number}", "rank": 1, "successor": None,
        }
        for number in range(rows)
    ]  # fmt: skip
    for start in range(0, rows, 1000):
        async with store._database._opened().transactions.begin() as connection:  # noqa: SLF001 - 100 000 creates take minutes
            await connection.execute(sessions.insert(), values[start : start + 1000])


async def requests(store: SqlStore, stop: asyncio.Event, seconds: list[float]) -> None:
    """Load and write sessions until told to stop."""
    key = os.urandom(24).hex()
    await store.create(key, Entry(DATA, FOREVER, "user"))
    version = 1
    while not stop.is_set():
        began = time.perf_counter()
        await store.load(key)
        version = await store.replace(key, Entry(DATA, FOREVER, "user"), version=version)
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)


async def timed(store: SqlStore, rows: int) -> tuple[list[float], float, int]:
    """Return the times of the requests while `rows` are swept (or while nothing is), and how long the sweep took."""
    stop = asyncio.Event()
    seconds: list[float] = []
    clients = [asyncio.create_task(requests(store, stop, seconds)) for _ in range(CLIENTS)]
    began, swept = time.perf_counter(), 0
    if rows:
        while removed := await store.delete_expired(1000):
            swept += removed
    else:
        await asyncio.sleep(QUIET_SECONDS)
    took = time.perf_counter() - began
    stop.set()
    await asyncio.gather(*clients)
    return sorted(seconds), took, swept


def told(seconds: list[float]) -> str:
    """The longest and the 99th percentile, in milliseconds."""
    return f"{seconds[-1] * 1000:6.1f} / {seconds[len(seconds) * 99 // 100] * 1000:5.1f}"


async def measure(engine: str, url: str, rows: int, batch: int) -> None:
    """Print the line of one database."""
    sql._SWEPT_AT_ONCE = batch  # type: ignore[misc] # noqa: SLF001 - what is measured
    store = SqlStore(url, timeout=30)
    await store.open()
    await store.delete_expired(10**9)
    await fill(store, rows)
    quiet, _, _ = await timed(store, 0)
    busy, took, swept = await timed(store, rows)
    await store.close()
    line = f"| {engine:10} | {swept:7} | {batch:5} | {told(quiet)} | {told(busy)} | {took:5.1f} s | {len(busy) / took:6.0f} |"
    print(line, flush=True)


@contextmanager
def engines(names: list[str]) -> Iterator[dict[str, str]]:
    """The URLs of the databases that can be had."""
    urls: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        if "sqlite" in names:
            urls["SQLite"] = f"sqlite+aiosqlite:///{directory}/sessions.db"
        servers = []
        package, program = postgres_server.installed(), mariadb_server.installed()
        if "postgres" in names and package is not None:
            servers.append(("PostgreSQL", postgres_server.PostgresServer(package)))
        if "mariadb" in names and program is not None:
            servers.append(
                ("MariaDB", mariadb_server.MariadbServer(program, "--innodb-buffer-pool-size=128M", "--innodb-log-file-size=96M"))
            )
        try:
            for name, server in servers:
                server.start()
                urls[name] = server.url
            yield urls
        finally:
            for _, server in servers:
                server.remove()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The longest request while expired sessions are swept.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[sql._SWEPT_AT_ONCE])  # noqa: SLF001 - the default
    parser.add_argument("--engines", nargs="+", default=["sqlite", "postgres", "mariadb"])
    options = parser.parse_args()
    print("| engine     |    rows | batch | quiet: max / p99 ms | sweep: max / p99 ms | sweep took | requests/s |")
    print("|---|---|---|---|---|---|---|")
    with engines(options.engines) as urls:
        for name, url in urls.items():
            for batch in options.batch:
                asyncio.run(measure(name, url, options.rows, batch))


if __name__ == "__main__":
    main()
