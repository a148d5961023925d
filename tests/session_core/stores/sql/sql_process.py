"""Another process on a PostgreSQL database: rotates sessions in one batch and stops before the commit.

Arguments: URL, and how many sessions. Says `at the commit` once all statements have been run, and then waits for its end.
"""

from __future__ import annotations

import asyncio
import sys

from session_core.stores.base import Entry
from session_core.stores.sql.postgresql import PostgresqlLink
from session_core.stores.sql.store import SqlStore

FOREVER = 2**52


async def main(url: str, number: str) -> None:
    store = SqlStore(url)
    await store.open()

    async def stop(_: PostgresqlLink) -> None:
        sys.stdout.write("at the commit\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    PostgresqlLink.commit = stop  # type: ignore[method-assign]
    entry = Entry(b"new", FOREVER, "user", "op")
    await asyncio.gather(
        *(store.rotate(str(each), f"{each} new", entry, version=1, successor_until=FOREVER) for each in range(int(number)))
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
