"""Another process on the file of a SQLite store: does one kind of work and prints the result.

Arguments: file, kind of work, and what that takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from session_core.errors import SessionConflictError
from session_core.stores.base import Entry
from session_core.stores.sqlite.store import SqliteStore

FOREVER = 2**52


def entry(data: bytes) -> Entry:
    return Entry(data, FOREVER)


async def die(store: SqliteStore, moment: str) -> None:
    """Write a group and be killed between its statements and its commit, or right after the commit."""
    writer = store._opened()[1]
    commit: Callable[[list[Any]], bool] = writer._commit

    def die_committing(group: list[Any]) -> bool:
        if moment == "after":
            commit(group)
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    writer._commit = die_committing  # type: ignore[method-assign]
    steps = [store.replace(str(number), entry(b"new"), version=1) for number in range(10)]
    await asyncio.gather(*steps, store.rotate("old", "new", entry(b"new"), version=1, successor_until=FOREVER))


async def increment(store: SqliteStore, sessions: str, writers: str, times: str, pause: str) -> None:
    """Increment counters with several writers that sometimes use the same session, with random pauses."""

    async def write(number: int) -> None:
        for time in range(int(times)):
            key = f"counter{(number * 7 + time) % int(sessions)}"
            while True:
                stored = await store.load(key)
                assert stored is not None
                count = int(stored.entry.data) + 1
                with suppress(SessionConflictError):
                    await store.replace(key, entry(b"%d" % count), version=stored.version)
                    break
            await asyncio.sleep(float(pause) * (number % 3))

    sys.stdout.write("begins\n")
    sys.stdout.flush()
    sys.stdin.readline()
    await asyncio.gather(*(write(number) for number in range(int(writers))))


async def fork(store: SqliteStore) -> None:
    """Use an open store in a forked child, in its own event loop, and in the parent at the same time."""
    await store.create("before", entry(b""))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # In a thread, because the child's main thread inherits the parent's running event loop.
            thread = Thread(target=lambda: asyncio.run(use(store, "child")))
            thread.start()
            thread.join()
            status = 0
        finally:
            os._exit(status)
    await use(store, "parent")
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    found = [await store.load(f"{name}{number}") for name in ("child", "parent") for number in range(50)]
    sys.stdout.write(json.dumps([status, sum(each is not None for each in found)]))


async def use(store: SqliteStore, name: str) -> None:
    assert await store.load("before") is not None
    for number in range(50):
        await store.create(f"{name}{number}", entry(b""))


async def main(path: str, work: str, *arguments: str) -> None:
    store = SqliteStore(path, timeout=60)
    await store.open()
    works: dict[str, Callable[..., Any]] = {"die": die, "increment": increment, "fork": fork}
    await works[work](store, *arguments)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
