"""Four workers of one node that sweep a store; prints the claimed turns and the removed rows."""

from __future__ import annotations

import asyncio
import os
import sys

from session_core import SessionManager, SystemClock, Timeouts
from session_core.events import Events
from session_core.sessions.revocation_marks import RevocationMarks
from session_core.sessions.sweeper import Sweeper
from session_core.stores.guarded import GuardedStore
from session_core.stores.opening import open_store

WORKERS = 4


class TellingStore(GuardedStore):
    async def claim(self, name: str, expires_at: int) -> bool:
        won = await super().claim(name, expires_at)
        if won:
            os.write(1, f"won {name}\n".encode())
        return won

    async def delete_expired(self, limit: int = 1000) -> int:
        removed = await super().delete_expired(limit)
        os.write(1, f"removed {removed}\n".encode())
        return removed


async def main(url: str, interval: float) -> None:
    async def ignore(reason: str) -> None:
        del reason

    clock = SystemClock()
    stores = [TellingStore(open_store(url), timeout=30, on_outage=ignore) for _ in range(WORKERS)]
    for store in stores:
        await store.open()
    os.write(1, b"begun\n")
    for store in stores:
        marks = RevocationMarks(store, Timeouts(), clock)
        Sweeper(SessionManager(store, Timeouts(), clock, Events(clock), marks), interval=interval).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
