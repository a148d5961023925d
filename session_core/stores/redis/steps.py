"""The atomic steps as calls: times become durations, keys become names, and answers become results or refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from session_core.errors import SessionConflictError, SessionGoneError, StoreUnavailableError
from session_core.stores.redis import scripts
from session_core.stores.redis.connection import Reply, report_outage, unavailable
from session_core.stores.redis.layout import (
    INDEX_CELL_MS,
    Layout,
    encode_record,
    is_in_use,
    key_of,
    member_of,
    pointed_to,
    pointer_to,
)
from session_core.stores.redis.link import AT_ONCE, RedisLink, gather_all, portions

if TYPE_CHECKING:
    from session_core.clock import Clock
    from session_core.stores.base import Entry
    from session_core.stores.redis.scripts import Script

__all__ = ("Entered", "RedisSteps", "expect")

_NO_TOKEN: Final = b""
_MEMBERS_AT_ONCE: Final = 1000
_POINTER_MS: Final = 30_000
"""How long a pointer is kept at least: longer than a login may take, which has read an index before the rotation."""


class Entered(msgspec.Struct, frozen=True):
    """What an index says when a member has entered it."""

    score: int
    """Those of a lower score have entered before."""
    count: int
    """Of its members."""


class RedisSteps:
    """What can be done in one step. With a `token` the new key has been reserved under it."""

    def __init__(self, link: RedisLink, layout: Layout, clock: Clock) -> None:
        self.link = link
        self.layout = layout
        self.clock = clock

    def run(self, script: Script, keys: Sequence[bytes], *args: bytes | int, by: float | None = None) -> Awaitable[Reply]:
        """Run a script, as of now."""
        return self.link.run(script, keys, self.clock.now(), *args, by=by)

    async def create(self, key: str, entry: Entry, limit: int, token: bytes = _NO_TOKEN) -> tuple[str, ...] | None:
        """Begin a session. Returns what was ended for the limit; None when nothing was done, since it takes several steps."""
        reply = await self.run(
            scripts.CREATE,
            [self.layout.record(key), *self._indexes_beside(entry)],
            encode_record(1, entry),
            self.ttl(entry.expires_at),
            member_of(key),
            self.index_ttl(entry.expires_at),
            self.layout.prefix,
            limit,
            token,
        )
        return _ended(reply)

    async def replace(self, key: str, entry: Entry, version: int) -> int:
        """Overwrite a session of `version`; return the new version."""
        member, now, new, expires_at = member_of(key), self.clock.now(), version + 1, entry.expires_at
        value, ttl = encode_record(new, entry), expires_at - now if expires_at > now else 0
        by = monotonic() + self.link.keeps_within
        reply = await self.link.run(scripts.REPLACE, [self.layout.prefix + member], now, version, value, ttl)
        if type(reply) is not int:
            try:  # within the time of one step, though it takes two
                async with asyncio.timeout(by - monotonic()):
                    reply = await self._write_indexed(scripts.REPLACE, member, entry, expires_at, now, version, value, ttl, by=by)
            except TimeoutError:
                report_outage("timeout")
        if reply != new:
            return expect(reply)
        return new

    async def rotate(
        self,
        old_key: str,
        new_key: str,
        entry: Entry,
        *,
        version: int,
        successor_until: int,
        limit: int,
        token: bytes = _NO_TOKEN,
    ) -> tuple[str, ...] | None:
        """Move a session. Returns what `create` does."""
        reply = await self.run(
            scripts.ROTATE,
            [self.layout.record(old_key), self.layout.record(new_key), *self._indexes_beside(entry)],
            version,
            encode_record(1, entry),
            self.ttl(entry.expires_at),
            pointer_to(new_key, successor_until),
            max(self.ttl(successor_until), _POINTER_MS),
            member_of(new_key),
            member_of(old_key),
            self.index_ttl(entry.expires_at),
            self.layout.prefix,
            limit,
            token,
        )
        return _ended(reply)

    async def touch(self, key: str, entry: Entry | None, expires_at: int) -> bool | None:
        """Move an expiry forward; None when the indexes have to live longer, too, and the entry is needed to find them."""
        member, now = member_of(key), self.clock.now()
        arguments = (now, expires_at, max(expires_at - now, 0))
        reply = await self.link.run(scripts.TOUCH, [self.layout.prefix + member], *arguments)
        if type(reply) is int:
            return bool(reply)
        return None if entry is None else bool(await self._write_indexed(scripts.TOUCH, member, entry, expires_at, *arguments))

    async def finish(
        self, member: bytes, *, owned: bytes = b"", keep: bytes = b"", evict: bool = False, by: float | None = None
    ) -> tuple[str, ...]:
        """End a session, or what it was rotated to; with `evict` also a login under way. Returns the key."""
        name, mark = self.layout.prefix + member, b"1" if evict else b""
        ended: list[bytes] = await self.run(scripts.FINISH, [name], self.layout.prefix, member, owned, keep, mark, by=by)
        return tuple(key_of(member) for member in ended)

    async def finish_all(self, index: bytes, *, owned: bytes, keep: bytes) -> tuple[str, ...]:
        """End all sessions of an index, in steps that take the server about a millisecond each. Returns the keys."""
        ended: list[str] = []
        if self.link.clustered:
            # Whatever was live is in the index, or is what a member of it was rotated to meanwhile.
            for some in portions(await self.members(index)):
                finished = await gather_all(self.finish(member, owned=owned, keep=keep) for member in some)
                keys = [key for keys in finished for key in keys]
                ended += keys
                await self.delist(index, [member_of(key) for key in keys])
            return tuple(ended)
        after: bytes | int = 0
        while after != b"":
            after, *members = await self.run(scripts.SWEEP, [index], self.layout.prefix, owned, keep, after, AT_ONCE)
            ended += map(key_of, members)
        return tuple(ended)

    async def enlist(self, index: bytes, member: bytes, expires_at: int) -> Entered:
        """Put a member into an index, and take out some of those of which nothing is left."""
        score, count, *sampled = await self.run(scripts.ENLIST, [index], member, self.index_ttl(expires_at))
        if sampled:
            values = await self.read(sampled)
            await self.delist(index, [other for other, value in zip(sampled, values, strict=True) if not is_in_use(value)])
        return Entered(score, count)

    async def delist(self, index: bytes, members: Sequence[bytes]) -> None:
        """Take members out of an index of which nothing is left: what has ended never comes back under its key."""
        for some in portions(members):
            await self.run(scripts.DELIST, [index], b"" if self.link.clustered else self.layout.prefix, *some)

    async def members(self, index: bytes, *, before: int | None = None) -> list[bytes]:
        """Return the members of an index in the order in which they entered, up to the score `before`."""
        found: list[bytes] = []
        after, end = b"0", b"+inf" if before is None else b"(%d" % before
        while True:
            limits = (b"(" + after, end, b"BYSCORE", b"LIMIT", 0, _MEMBERS_AT_ONCE, b"WITHSCORES")
            page: list[bytes] = await self.link.call(b"ZRANGE", index, *limits)
            found += page[::2]
            if len(page) < 2 * _MEMBERS_AT_ONCE:
                return found
            after = page[-1]

    async def values(self, index: bytes, *, before: int | None = None) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Iterate over what the members of an index lead to, in portions: each with its value, those that move as well.

        All members are read before the first value. So what is rotated meanwhile is found at its old member, as a pointer, and
        followed. Members of one hash tag (a session and what it is rotated to) are read at one instant. Members of which nothing
        is left are taken out of the index.
        """
        members = await self.members(index, before=before)
        known = set(members)
        for some in _tag_by_tag(members):
            values = dict(zip(some, await self.read(some), strict=True))
            await self.delist(index, [member for member, value in values.items() if not is_in_use(value)])
            while missing := {there for value in values.values() if (there := pointed_to(value))} - known:
                known |= missing
                values |= zip(missing, await self.read(list(missing)), strict=True)
            yield [(member, value) for member, value in values.items() if value is not None]

    async def read(self, members: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of members."""
        return await self.link.read([self.layout.prefix + member for member in members])

    async def withdraw(self, key: str, token: bytes) -> None:
        """Remove the reservation of a login that has failed; it lapses by itself where that cannot be done."""
        with suppress(StoreUnavailableError):
            await self.run(scripts.WITHDRAW, [self.layout.record(key)], token)

    def ttl(self, expires_at: int) -> int:
        """Milliseconds from now; 0 when it is over."""
        return max(expires_at - self.clock.now(), 0)

    def index_ttl(self, expires_at: int) -> int:
        """Milliseconds for which an index is kept that has a member until `expires_at`."""
        return max((expires_at // INDEX_CELL_MS + 2) * INDEX_CELL_MS - self.clock.now(), 1)

    async def _write_indexed(
        self,
        script: Script,
        member: bytes,
        entry: Entry,
        expires_at: int,
        *arguments: bytes | int,
        by: float | None = None,
    ) -> int:
        """Change a record and its indexes in the same step; on a cluster, the indexes before it."""
        if self.link.clustered:
            for index in self.layout.indexes(entry):
                await self.enlist(index, member, expires_at)
        keys, index_ttl = [self.layout.prefix + member, *self._indexes_beside(entry)], self.index_ttl(expires_at)
        reply: int = await self.link.run(script, keys, *arguments, member, index_ttl, self.layout.prefix, by=by)
        return reply

    def _indexes_beside(self, entry: Entry) -> list[bytes]:
        """The indexes that change in the same step as the record."""
        return [] if self.link.clustered else self.layout.indexes(entry)


def _tag_by_tag(members: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Divide into portions of about `AT_ONCE`, those of one hash tag together."""
    tagged: dict[bytes, list[bytes]] = {}
    for member in members:
        tagged.setdefault(member.partition(b"}")[0], []).append(member)
    some: list[bytes] = []
    for together in tagged.values():
        some += together
        if len(some) >= AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def expect(answer: int) -> int:
    """Return an answer that is no refusal."""
    if answer >= 0:
        return answer
    if answer == scripts.GONE:
        raise SessionGoneError
    if answer == scripts.CONFLICT:
        raise SessionConflictError
    reason = "it cannot be told whether the write was made" if answer == scripts.UNKNOWN else "the write took too long"
    raise unavailable(reason)


def _ended(reply: list[Reply]) -> tuple[str, ...] | None:
    if reply[0] == scripts.MANY:
        return None
    expect(reply[0])
    return tuple(key_of(member) for member in reply[1:])
