"""Logins in several steps: on a cluster, and on one server for a user who has very many sessions.

On a cluster a session and its indexes are in different slots. On one server, a script that looked at thousands of sessions
would block all other users. A login (a session that begins or moves with a user or an OP session) takes these steps,
each atomic in its slot:

1. RESERVE: a reservation with a random token is put where the record will be. It lives until the deadline of the login.
2. ENLIST: the key enters its indexes. From here on a revocation or a later login sees it.
3. If the user's index has more members than the limit: all earlier members that are live or reserved count, and those of the
lowest rank above the limit are ended (a reservation becomes a tombstone). 4. CREATE or ROTATE, which need the reservation. If it
was replaced by a tombstone, a later login has displaced this one: it ends as if it had been live for an instant.

**Never one more than the limit.** Count a session once for all the keys that it is rotated through; its place in the user's
index is that of its login. Of all live sessions of a user take the one, L, that entered last. When L entered, each of the
others had a member in the index: its key at that time, which had entered before it became live. A member stays in the index
as long as a record, a reservation or a pointer is under it, and a pointer is kept for half a minute at least, longer than a
login may take. So whatever happens between the reading of the index and the reading of the records, L finds each of the
others: as a record; as a reservation; or moved, as a pointer that leads to its record. L became live only after all but
`limit` - 1 of them had ended, and what has ended or has lost its reservation never comes back. With L they are `limit` at most.

A session that is being regenerated counts once: its reservation names the session that it moves, and both are in one slot,
hence are read at one instant.

**Interrupted.** Every step carries the deadline of the login, so none is made after its 503. A login that fails before step 4
never begins. It takes its reservation back, or lets it lapse at the deadline, so that it is not counted; readers of the indexes
take out what it has entered there. Step 3 ends sessions only while at least half of the remaining time is left for step 4. A
node that fails in just these milliseconds, or a killed process, leaves the sessions ended whose place the login was to take.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from session_core.errors import StoreUnavailableError
from session_core.stores.deadlines import step_deadline
from session_core.stores.redis import scripts
from session_core.stores.redis.layout import decode_reservation, key_of, member_of, owner_bytes, pointed_to, read_record
from session_core.stores.redis.link import gather_all
from session_core.stores.redis.steps import RedisSteps, expect

if TYPE_CHECKING:
    from session_core.stores.base import Entry

__all__ = ("SteppedLogins",)

_TOKEN_BYTES: Final = 8


class SteppedLogins:
    """Steps 1 to 4. `hold` is the time limit in seconds of a login without a deadline."""

    def __init__(self, steps: RedisSteps, *, hold: float) -> None:
        self._steps = steps
        self._hold = hold

    async def create(self, key: str, entry: Entry, limit: int) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        async with self._reserved(key, entry) as token:
            ended = await self._enter(key, entry, limit, moves=None)
            await self._steps.create(key, entry, 0, token)
        return ended

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        async with self._reserved(new_key, entry, old_key, version) as token:
            ended = await self._enter(new_key, entry, limit, moves=old_key)
            await self._steps.rotate(
                old_key, new_key, entry, version=version, successor_until=successor_until, limit=0, token=token
            )
        return ended

    @asynccontextmanager
    async def _reserved(self, key: str, entry: Entry, old_key: str | None = None, version: int = 0) -> AsyncIterator[bytes]:
        """Step 1, undone when a later step fails. Yields the token."""
        token = secrets.token_bytes(_TOKEN_BYTES)
        try:
            await self._reserve([key] if old_key is None else [key, old_key], entry, token, version=version)
            yield token
        except StoreUnavailableError as error:
            error.not_applied = False  # a session may have ended for it
            await self._steps.withdraw(key, token)
            raise

    async def _reserve(self, keys: list[str], entry: Entry, token: bytes, *, version: int) -> None:
        """Step 1. With two keys also checks that the second is still the session to move."""
        deadline = step_deadline()
        hold = self._hold if deadline is None else max(deadline - monotonic(), 0)
        names = [self._steps.layout.record(key) for key in keys]
        args = (token, entry.rank, owner_bytes(entry.user), member_of(keys[-1]), round(hold * 1000) + 1, version)
        expect(await self._steps.run(scripts.RESERVE, names, *args))

    async def _enter(self, key: str, entry: Entry, limit: int, *, moves: str | None) -> tuple[str, ...]:
        """Steps 2 and 3."""
        member, indexes = member_of(key), self._steps.layout.indexes(entry)
        entered = await gather_all(self._steps.enlist(index, member, entry.expires_at) for index in indexes)
        if limit == 0 or entered[0].count <= limit:
            return ()
        return await self._make_room(indexes[0], entry, limit, before=entered[0].score, moves=moves)

    async def _make_room(self, index: bytes, entry: Entry, limit: int, *, before: int, moves: str | None) -> tuple[str, ...]:
        """End the sessions of the lowest rank until there is room for one more."""
        now = self._steps.clock.now()
        live: dict[bytes, int] = {}
        """The rank of each session, by its member."""
        reserved: dict[bytes, tuple[int, bytes]] = {}
        """The rank of each login in progress, and the member of the session that it moves."""
        leads: dict[bytes, bytes] = {}
        """The successors of members."""
        async for portion in self._steps.values(index, before=before):
            for member, value in portion:
                if (there := pointed_to(value)) is not None:
                    leads[member] = there
                elif (reservation := decode_reservation(value)) is not None:
                    reserved[member] = reservation
                elif (stored := read_record(key_of(member), value, now)) is not None and stored.entry.user == entry.user:
                    live[member] = stored.entry.rank

        def newest(member: bytes) -> bytes:
            while (there := leads.get(member)) is not None:
                member = there
            return member

        moved = None if moves is None else newest(member_of(moves))
        sessions = {moved, *live}
        others = [(rank, member) for member, rank in live.items() if member != moved]
        others += [(rank, member) for member, (rank, moving) in reserved.items() if newest(moving) not in sessions]
        chosen = [member for _, member in sorted(others)[: max(len(others) - limit + 1, 0)]]
        owned, by = b"u" + owner_bytes(entry.user), self._half_time()
        ended = await gather_all(self._steps.finish(member, owned=owned, evict=True, by=by) for member in chosen)
        return tuple(key for keys in ended for key in keys)

    def _half_time(self) -> float:
        """The deadline for ending sessions, which leaves half of the remaining time for the login itself."""
        deadline, now = step_deadline(), monotonic()
        return now + (self._hold if deadline is None else deadline - now) / 2
