"""Removes expired rows in small steps that do not block other transactions.

A step holds locks, a connection and a core, so requests may wait for it. Its duration depends on rows, disk and load, so it is
measured, and the next step is adapted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from session_core.stores.sql.statements import Statement
from session_core.stores.sql.steps import LOCK_PREFIX

if TYPE_CHECKING:
    from session_core.stores.sql.database import Earlier, SqlDatabase
    from session_core.stores.sql.link import Link

__all__ = ("Pace", "remove_expired", "remove_some")

_NAMES: Final = {"sessions": "key", "session_claims": "name"}
_OTHERS: Final = 100
"""Rows that another sweeper may hold, and that are skipped."""
_FEWEST: Final = 25
"""The fewest rows of a step; fewer would be mostly overhead."""
_MOST: Final = 100
"""The most rows of a step, however fast: their dirty pages, log and index entries are written later."""
_STEP_SECONDS: Final = 0.005
"""The target duration of a step; after a longer one the size is halved."""
_LONGEST_REST: Final = 1.0
"""Seconds. A step that waited for a lost server does not count for the next one."""
_CALL_SECONDS: Final = 10.0
"""Seconds of one call, below the callers' deadlines; the next call continues."""

# By the places of the rows: whatever PostgreSQL knows of the table, it need not plan how to find them. By their names it may read
# the whole table, and compare each row with all of them, until it has statistics. In the order of the index: without it
# PostgreSQL reads the table from its beginning, with each step more pages that earlier steps have emptied. The expiry is asked
# again: the row may have been replaced by a new session of that name after the statement began. The commit waits for no disk, and
# no other commit waits behind it: what a crash brings back has expired, and is swept again.
_REMOVE: Final = {
    table: Statement(
        f"DELETE FROM {table} WHERE {table}.ctid = ANY (ARRAY("
        f"SELECT ctid FROM {table} WHERE expires_at <= :now ORDER BY expires_at LIMIT :most FOR UPDATE SKIP LOCKED))"
        " AND expires_at <= :now AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL"
    )
    for table in _NAMES
}
# MySQL's DELETE cannot pass over locked rows. Looking for what has expired, it would lock what has not: the first row behind it,
# or any in a small table. Hence it looks without locks, takes what is free by name, and deletes that.
_FIND: Final = {
    table: Statement(f'SELECT "{name}" FROM {table} WHERE expires_at <= :now ORDER BY expires_at LIMIT :most')
    for table, name in _NAMES.items()
}
_TAKE: Final = {
    table: Statement(
        f'SELECT "{name}" FROM {table} FORCE INDEX (PRIMARY) WHERE "{name}" IN :names AND expires_at <= :now'
        " LIMIT :most FOR UPDATE SKIP LOCKED"
    )
    for table, name in _NAMES.items()
}
_DELETE: Final = {
    table: Statement(f'DELETE {table} FROM {table} FORCE INDEX (PRIMARY) WHERE "{name}" IN :names AND expires_at <= :now')
    for table, name in _NAMES.items()
}


class Pace:
    """Sets the size of the steps by the time they take. `timer` gives seconds, `sleep` waits for some."""

    def __init__(
        self,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.timer = timer
        self.rows = _FEWEST
        """The size of the next step."""
        self._sleep = sleep

    def is_over(self, began: float) -> bool:
        """Whether a call that began at `began` has used up its time."""
        return self.timer() - began >= _CALL_SECONDS

    async def rest(self, seconds: float) -> None:
        """Rest after a step for as long as it took, so that nothing is locked for at least half of the time."""
        if seconds > _STEP_SECONDS:
            self.rows = max(self.rows // 2, _FEWEST)
        elif seconds < _STEP_SECONDS / 2:
            self.rows = min(self.rows * 2, _MOST)
        await self._sleep(min(seconds, _LONGEST_REST))


async def remove_expired(database: SqlDatabase, pace: Pace, limit: int, now: Callable[[], int]) -> int:
    """Remove up to `limit` expired rows; return how many records they were. May stop before `limit`, never at nothing."""
    began = pace.timer()
    removed = 0
    for table in _NAMES:
        rows = limit
        while rows and removed < limit and not (removed and pace.is_over(began)):
            rows, records = await _step(database, pace, table, min(limit - removed, pace.rows), now)
            removed += records
    return removed


async def remove_some(link: Link, table: str, most: int, now: int) -> tuple[int, int]:
    """Delete expired rows that no other transaction holds; return how many, and how many were records and not locks."""
    if link.dialect == "postgresql":
        # The statement commits itself, so no lock is held while the event loop does other work.
        rows = await link.count(_REMOVE[table], {"now": now, "most": most})
        return rows, rows
    found = [name for (name,) in await link.rows(_FIND[table], {"now": now, "most": most + _OTHERS})]
    if not found:
        return 0, 0
    # Concurrent sweepers share the work, and none waits for a session in use.
    names = [name for (name,) in await link.rows(_TAKE[table], {"names": found, "now": now, "most": most})]
    if names:
        await link.count(_DELETE[table], {"names": names, "now": now})
    return len(names), sum(not name.startswith(LOCK_PREFIX) for name in names)


async def _step(database: SqlDatabase, pace: Pace, table: str, most: int, now: Callable[[], int]) -> tuple[int, int]:
    began = 0.0

    async def work(link: Link, earlier: Earlier[tuple[int, int]]) -> tuple[int, int]:
        del earlier
        nonlocal began
        began = pace.timer()  # measured from here: waiting for a connection blocks nothing
        return await remove_some(link, table, most, now())

    alone = database.driver.dialect == "postgresql"
    rows, records = await (database.write(work) if alone else database.transact(work))
    if rows:
        await pace.rest(pace.timer() - began)
    return rows, records
