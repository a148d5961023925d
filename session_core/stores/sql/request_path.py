"""The steps of most requests: load, replace, touch and rotate a session, claim a name; batched into one statement each.

PostgreSQL batches all of these. MySQL cannot return the rows that a statement has changed, so it batches only loads.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from session_core.errors import SessionConflictError, SessionCoreError, SessionGoneError
from session_core.stores.announcements import announced_name
from session_core.stores.base import Entry, StoredSession
from session_core.stores.sql import statements, steps
from session_core.stores.sql.batches import UNDECIDED, Batches, Call, Undecided
from session_core.stores.sql.database import Earlier, SqlDatabase

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.stores.sql.link import Link

__all__ = ("Move", "RequestPath")

_SENDERS: Final = 2
"""Concurrent batches of one kind: more would be smaller, and cost more for each session."""


class Move(NamedTuple):
    """The arguments of `SessionStore.rotate`; `limit` is 0 without a limit or a user."""

    old_key: str
    new_key: str
    entry: Entry
    version: int
    successor_until: int
    limit: int


class RequestPath:
    """See `load`, `replace`, `touch`, `rotate` and `claim` of `SessionStore`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._loads: Batches[None, StoredSession | None] = Batches(
            database, together=self._load_together, alone=self._load_alone, senders=_SENDERS, distinct=False
        )
        self._replaces: Batches[tuple[Entry, int], int] = Batches(
            database,
            together=self._replace_together,
            alone=self._replace_alone,
            senders=_SENDERS,
            distinct=True,
            bytes_of=lambda asked: len(asked[0].data),
        )
        self._touches: Batches[int, bool] = Batches(
            database, together=self._touch_together, alone=self._touch_alone, senders=_SENDERS, distinct=True
        )
        self._moves: Batches[Move, tuple[str, ...]] = Batches(
            database,
            together=self._move_together,
            alone=self._move_alone,
            senders=_SENDERS,
            distinct=True,
            bytes_of=lambda move: len(move.entry.data),
        )
        self._claims: Batches[tuple[int, int], bool] = Batches(
            database, together=self._claim_together, alone=self._claim_alone, senders=_SENDERS, distinct=True
        )
        self._writes_together = database.driver.dialect == "postgresql"

    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        return await self._loads.call(key, None)

    async def replace(self, key: str, entry: Entry, version: int) -> int:
        """See `SessionStore.replace`."""
        if self._writes_together:
            return await self._replaces.call(key, (entry, version))
        return await self._database.write(partial(self._replace, key, entry, version))

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        if self._writes_together:
            return await self._touches.call(key, expires_at)
        return await self._database.write(partial(self._touch, key, expires_at))

    async def rotate(self, move: Move) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        if self._writes_together:
            return await self._moves.call(move.old_key, move)
        return await self._database.transact(partial(self._move, move))

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        token = secrets.randbits(63)
        if self._writes_together:
            return await self._claims.call(name, (expires_at, token))
        return await self._database.transact(partial(self._claim, name, expires_at, token))

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
        keys = [call.key for call in batch]
        now = self._clock.now()
        values = {
            **_arrays(entries),
            "keys": keys,
            "now": now,
            "versions": [str(call.asked[1]) for call in batch],
            "deadlines": [str(link.clock.at(call.deadline)) for call in batch],
        }
        written = {row[0] for row in await link.rows(statements.REPLACE_MANY, values)}
        if len(written) == len(batch):
            return [call.asked[1] + 1 for call in batch]
        found = await self._versions(link, [key for key in keys if key not in written], now)
        return [call.asked[1] + 1 if call.key in written else _refusal(found.get(call.key), call.asked[1]) for call in batch]

    async def _replace_alone(self, call: Call[tuple[Entry, int], int], uncertain: bool) -> int:  # noqa: FBT001
        work = partial(self._replace, call.key, *call.asked)
        return await self._database.transact(work, deadline=call.deadline, earlier=Earlier(uncertain=uncertain))

    async def _replace(self, key: str, entry: Entry, version: int, link: Link, earlier: Earlier[int]) -> int:
        return await steps.overwrite(link, earlier, key, entry, version, self._clock.now())

    async def _move_together(
        self, link: Link, batch: Sequence[Call[Move, tuple[str, ...]]]
    ) -> Sequence[tuple[str, ...] | SessionCoreError | Undecided]:
        wanted = {call.key: {steps.lock_number(name) for name in _indexes_of(call.asked)} for call in batch}

        async def work(link: Link, earlier: Earlier[set[str]]) -> set[str]:
            del earlier
            # In a separate statement before the one that counts a user's sessions, which must see the writes of the lock's last
            # owner.
            rows = await link.rows(statements.TRY_LOCK, {"numbers": sorted(set().union(*wanted.values()))})
            locked = {row[0] for row in rows}
            free = [call for call in batch if wanted[call.key] <= locked]
            return await self._move_locked(link, free) if free else set()

        moved = await self._database.transact_on(link, work)
        return [() if call.key in moved else UNDECIDED for call in batch]

    async def _move_locked(self, link: Link, calls: Sequence[Call[Move, tuple[str, ...]]]) -> set[str]:
        moves = [call.asked for call in calls]
        values = {
            **_arrays([move.entry for move in moves]),
            "keys": [move.old_key for move in moves],
            "now": self._clock.now(),
            "versions": [str(move.version) for move in moves],
            "new_keys": [move.new_key for move in moves],
            "until": [str(move.successor_until) for move in moves],
            "names": [announced_name(move.old_key.encode()) for move in moves],
            "limits": [str(move.limit) for move in moves],
            "deadlines": [str(link.clock.at(call.deadline)) for call in calls],
        }
        return {row[0] for row in await link.rows(statements.MOVE_MANY, values)}

    async def _move_alone(self, call: Call[Move, tuple[str, ...]], uncertain: bool) -> tuple[str, ...]:  # noqa: FBT001
        earlier: Earlier[tuple[str, ...]] = Earlier(uncertain=uncertain)
        if uncertain:
            earlier.results.append(())
        return await self._database.transact(partial(self._move, call.asked), deadline=call.deadline, earlier=earlier)

    async def _move(self, move: Move, link: Link, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
        entry, now = move.entry, self._clock.now()
        # Both indexes: code that ends the sessions of a user, or of an OP session, must find the new key or the old one.
        await steps.lock(link, _indexes_of(move), now)
        moved = await steps.move(
            link,
            earlier,
            move.old_key,
            move.new_key,
            entry,
            version=move.version,
            successor_until=move.successor_until,
            now=now,
        )
        return await steps.make_room(link, move.new_key, entry.user, move.limit, now) if moved else earlier.results[-1]

    async def _claim_together(self, link: Link, batch: Sequence[Call[tuple[int, int], bool]]) -> Sequence[bool]:
        values = {
            "keys": [call.key for call in batch],
            "now": self._clock.now(),
            "expires_at": [str(call.asked[0]) for call in batch],
            "tokens": [str(call.asked[1]) for call in batch],
        }
        claimed = {row[0] for row in await link.rows(statements.CLAIM_MANY, values)}
        return [call.key in claimed for call in batch]

    async def _claim_alone(self, call: Call[tuple[int, int], bool], uncertain: bool) -> bool:  # noqa: FBT001
        work = partial(self._claim, call.key, *call.asked)
        return await self._database.transact(work, deadline=call.deadline, earlier=Earlier(uncertain=uncertain))

    async def _claim(self, name: str, expires_at: int, token: int, link: Link, earlier: Earlier[bool]) -> bool:
        return await steps.claim(link, earlier, name, expires_at, token, self._clock.now())

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
        work = partial(self._touch, call.key, call.asked)
        return await self._database.transact(work, deadline=call.deadline, earlier=Earlier(uncertain=uncertain))

    async def _touch(self, key: str, expires_at: int, link: Link, earlier: Earlier[bool]) -> bool:
        del earlier
        return await steps.extend(link, key, expires_at, self._clock.now())

    async def _versions(self, link: Link, keys: list[str], now: int) -> dict[str, int]:
        rows = await link.rows(statements.VERSIONS, {"keys": keys, "now": now})
        return {row[0]: row[1] for row in rows}


def _arrays(entries: Sequence[Entry]) -> dict[str, object]:
    """Return the values that rows have from their entries, by column; all data is one value."""
    lengths = [len(entry.data) for entry in entries]
    return {
        "data": b"".join(entry.data for entry in entries),
        "starts": [str(1 + end - length) for end, length in zip(accumulate(lengths), lengths, strict=True)],
        "lengths": [str(length) for length in lengths],
        "expires_at": [str(entry.expires_at) for entry in entries],
        "user_keys": [entry.user for entry in entries],
        "op_session_keys": [entry.op_session for entry in entries],
        "ranks": [str(entry.rank) for entry in entries],
    }


def _indexes_of(move: Move) -> list[str]:
    return [name for name in (move.entry.user, move.entry.op_session) if name is not None]


def _refusal(found: int | None, expected: int) -> SessionCoreError | Undecided:
    """Return why a session was not written: ended or of another version; None if it was locked or late."""
    if found is None:
        return SessionGoneError()
    return UNDECIDED if found == expected else SessionConflictError()
