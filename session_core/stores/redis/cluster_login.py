"""Logins on a cluster, where a session and its indexes are in different slots; one server needs none of this.

A login (a session that begins or moves with a user or an OP session) takes these steps, each atomic in its slot:

1. RESERVE: a reservation with a random token is put where the record will be. It lives for seconds.
2. ENLIST: the key enters its indexes. From here on a revocation or a later login sees it.
3. With a limit: everything else in the user's index that is live or reserved counts, and what has the lowest rank above the
   limit is ended (a reservation becomes a tombstone).
4. CREATE or ROTATE, which need the reservation. Where a tombstone is in its place, a later login has taken this one's place:
   it is over as if it had been live for an instant.

Why there is never one more than the limit: of all live sessions of a user take the one that entered the index last. All the
others were in the index when it read it, because a live session never leaves the index. It became live only after all but
`limit` - 1 of these had ended, and what has ended or has lost its reservation never comes back. So with itself they are
`limit` at most. A session that is regenerated counts once: its reservation names the session that it moves.

A name without a record and without a reservation is of a session that has ended, and can be dropped at any time.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from session_core.stores.redis import scripts
from session_core.stores.redis.layout import decode_record, decode_reservation, is_live_format, key_of, member_of, owner_bytes
from session_core.stores.redis.link import gather
from session_core.stores.redis.steps import expect

if TYPE_CHECKING:
    from session_core.stores.base import Entry
    from session_core.stores.redis.steps import RedisSteps

__all__ = ("Reservations",)

_TOKEN_BYTES: Final = 8


class Reservations:
    """Steps 1 to 4. `hold_ms` is how long a login may take."""

    def __init__(self, steps: RedisSteps, *, hold_ms: int) -> None:
        self._steps = steps
        self._hold_ms = hold_ms

    async def create(self, key: str, entry: Entry, limit: int) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        token = await self._reserve([key], entry, version=0)
        ended = await self._enter(key, entry, limit, moves=None)
        await self._steps.create(key, entry, 0, token)
        return ended

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        token = await self._reserve([new_key, old_key], entry, version=version)
        ended = await self._enter(new_key, entry, limit, moves=old_key)
        await self._steps.rotate(old_key, new_key, entry, version=version, successor_until=successor_until, limit=0, token=token)
        return ended

    async def _reserve(self, keys: list[str], entry: Entry, *, version: int) -> bytes:
        """Step 1. With two keys also sees that the second is still what is to be moved."""
        token = secrets.token_bytes(_TOKEN_BYTES)
        names = [self._steps.layout.record(key) for key in keys]
        user = owner_bytes(entry.user)
        args = (token, entry.rank, user, member_of(keys[-1]), self._hold_ms, version)
        expect(await self._steps.run(scripts.RESERVE, names, *args))
        return token

    async def _enter(self, key: str, entry: Entry, limit: int, *, moves: str | None) -> tuple[str, ...]:
        """Steps 2 and 3."""
        member = member_of(key)
        calls = [
            self._steps.enlist(index, member, entry.expires_at, want_all=limit > 0 and place == 0)
            for place, index in enumerate(self._steps.layout.indexes(entry))
        ]
        listed = await gather(calls)
        apart = {member, b"" if moves is None else member_of(moves)}
        ended: tuple[str, ...] = ()
        for place, (index, members) in enumerate(zip(self._steps.layout.indexes(entry), listed, strict=True)):
            others = [other for other in members if other not in apart]
            values = dict(zip(others, await self._read(others), strict=True))
            gone = [other for other, value in values.items() if not is_live_format(value)]
            if gone:
                await self._steps.run(scripts.DELIST, [index], *gone)
            if limit > 0 and place == 0:
                ended = await self._make_room(entry, values, limit)
        return ended

    async def _make_room(self, entry: Entry, others: dict[bytes, bytes | None], limit: int) -> tuple[str, ...]:
        """End the sessions of the lowest rank until there is room for one more."""
        now = self._steps.clock.now()
        ranks: list[tuple[int, bytes]] = []
        moving: list[tuple[int, bytes, bytes]] = []
        for member, value in others.items():
            stored = decode_record(key_of(member), value, now)
            reservation = decode_reservation(value)
            if stored is not None and stored.entry.user == entry.user:
                ranks.append((stored.entry.rank, member))
            elif reservation is not None:
                moving.append((reservation[0], member, reservation[1]))
        live = {member for _, member in ranks}
        # What moves a session that is counted already is no other session.
        ranks += [(rank, member) for rank, member, moved in moving if moved not in live]
        chosen = [member for _, member in sorted(ranks)[: max(len(ranks) - limit + 1, 0)]]
        owned = b"u" + owner_bytes(entry.user)
        ended = await gather([self._steps.finish(member, owned=owned, hold_ms=self._hold_ms) for member in chosen])
        return tuple(key for keys in ended for key in keys)

    async def _read(self, members: list[bytes]) -> list[bytes | None]:
        return await self._steps.link.read([self._steps.layout.prefix + member for member in members])
