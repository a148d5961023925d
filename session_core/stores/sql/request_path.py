"""What nearly every request does: load a session, replace it, extend it; many of each as one statement.

PostgreSQL takes loads, compare-and-swaps and touches together. MySQL's UPDATE cannot return which rows it has changed, so there
only loads go together.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from session_core.errors import SessionConflictError, SessionCoreError, SessionGoneError
from session_core.stores.base import Entry, StoredSession
from session_core.stores.sql import statements, steps
from session_core.stores.sql.batches import UNDECIDED, Batches, Call, Undecided
from session_core.stores.sql.database import Earlier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from session_core.clock import Clock
    from session_core.stores.sql.database import SqlDatabase
    from session_core.stores.sql.link import Link

__all__ = ("RequestPath",)

_SENDERS: Final = 2
"""Batches of one kind that are under way at once: more would be smaller, and cost more for each session."""


class RequestPath:
    """See `load`, `replace` and `touch` of `SessionStore`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._loads: Batches[None, StoredSession | None] = Batches(
            database, together=self._load_together, alone=self._load_alone, senders=_SENDERS, distinct=False
        )
        self._replaces: Batches[tuple[Entry, int], int] = Batches(
            database, together=self._replace_together, alone=self._replace_alone, senders=_SENDERS, distinct=True
        )
        self._touches: Batches[int, bool] = Batches(
            database, together=self._touch_together, alone=self._touch_alone, senders=_SENDERS, distinct=True
        )
        self._writes_together = database.driver.dialect == "postgresql"

    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        return await self._loads.call(key, None)

    async def replace(self, key: str, entry: Entry, version: int) -> int:
        """See `SessionStore.replace`."""
        if self._writes_together:
            return await self._replaces.call(key, (entry, version))

        async def work(link: Link, earlier: Earlier[int]) -> int:
            return await steps.overwrite(link, earlier, key, entry, version, self._clock.now())

        return await self._database.write(work)

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        if self._writes_together:
            return await self._touches.call(key, expires_at)

        async def work(link: Link, earlier: Earlier[bool]) -> bool:
            del earlier
            return await steps.extend(link, key, expires_at, self._clock.now())

        return await self._database.write(work)

    async def _load_together(
        self, link: Link, batch: Sequence[Call[None, StoredSession | None]]
    ) -> Sequence[StoredSession | None]:
        rows = await link.rows(statements.LOAD, {"keys": [call.key for call in batch], "now": self._clock.now()})
        found = {row[0]: steps.stored(row) for row in rows}
        return [found.get(call.key) for call in batch]

    async def _load_alone(self, call: Call[None, StoredSession | None], uncertain: bool) -> StoredSession | None:  # noqa: FBT001
        del uncertain
        values = {"keys": [call.key], "now": self._clock.now()}
        rows = await self._database.read(statements.LOAD, values, deadline=call.deadline)
        return steps.stored(rows[0]) if rows else None

    async def _replace_together(
        self, link: Link, batch: Sequence[Call[tuple[Entry, int], int]]
    ) -> Sequence[int | SessionCoreError | Undecided]:
        entries = [call.asked[0] for call in batch]
        lengths = [len(entry.data) for entry in entries]
        keys = [call.key for call in batch]
        now = self._clock.now()
        values = {
            "keys": keys,
            "now": now,
            "versions": [str(call.asked[1]) for call in batch],
            "data": b"".join(entry.data for entry in entries),
            "starts": [str(1 + end - length) for end, length in zip(accumulate(lengths), lengths, strict=True)],
            "lengths": [str(length) for length in lengths],
            "expires_at": [str(entry.expires_at) for entry in entries],
            "user_keys": [entry.user for entry in entries],
            "op_session_keys": [entry.op_session for entry in entries],
            "ranks": [str(entry.rank) for entry in entries],
            "deadlines": [str(link.clock.at(call.deadline)) for call in batch],
        }
        written = {row[0] for row in await link.rows(statements.REPLACE_MANY, values)}
        if len(written) == len(batch):
            return [call.asked[1] + 1 for call in batch]
        found = await self._versions(link, [key for key in keys if key not in written], now)
        return [call.asked[1] + 1 if call.key in written else _refusal(found.get(call.key), call.asked[1]) for call in batch]

    async def _replace_alone(self, call: Call[tuple[Entry, int], int], uncertain: bool) -> int:  # noqa: FBT001
        entry, version = call.asked

        async def work(link: Link, earlier: Earlier[int]) -> int:
            return await steps.overwrite(link, earlier, call.key, entry, version, self._clock.now())

        return await self._database.transact(work, deadline=call.deadline, earlier=Earlier(uncertain=uncertain))

    async def _touch_together(self, link: Link, batch: Sequence[Call[int, bool]]) -> Sequence[bool | Undecided]:
        keys = [call.key for call in batch]
        now = self._clock.now()
        values = {
            "keys": keys,
            "now": now,
            "later": [str(call.asked) for call in batch],
            "deadlines": [str(link.clock.at(call.deadline)) for call in batch],
        }
        touched = {row[0] for row in await link.rows(statements.TOUCH_MANY, values)}
        if len(touched) == len(batch):
            return [True] * len(batch)
        found = await self._versions(link, [key for key in keys if key not in touched], now)
        return [True if call.key in touched else (UNDECIDED if call.key in found else False) for call in batch]

    async def _touch_alone(self, call: Call[int, bool], uncertain: bool) -> bool:  # noqa: FBT001
        async def work(link: Link, earlier: Earlier[bool]) -> bool:
            del earlier
            return await steps.extend(link, call.key, call.asked, self._clock.now())

        return await self._database.transact(work, deadline=call.deadline, earlier=Earlier(uncertain=uncertain))

    async def _versions(self, link: Link, keys: list[str], now: int) -> dict[str, int]:
        rows = await link.rows(statements.VERSIONS, {"keys": keys, "now": now})
        return {row[0]: row[1] for row in rows}


def _refusal(found: int | None, expected: int) -> SessionCoreError | Undecided:
    """Why a session was not written: it has ended, or is of another version; else it is locked, or it was too late."""
    if found is None:
        return SessionGoneError()
    return UNDECIDED if found == expected else SessionConflictError()
