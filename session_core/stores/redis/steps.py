"""The atomic steps as calls: times become durations, keys become names, and answers become results or refusals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores.redis import scripts
from session_core.stores.redis.connection import Reply, report_outage, unavailable
from session_core.stores.redis.layout import INDEX_CELL_MS, encode_record, key_of, member_of, pointer_to
from session_core.stores.redis.recent import RecentRecords

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from session_core.clock import Clock
    from session_core.stores.base import Entry
    from session_core.stores.redis.layout import Layout
    from session_core.stores.redis.link import RedisLink
    from session_core.stores.redis.lua import Script

__all__ = ("RedisSteps", "expect")

_NO_TOKEN: Final = b""


class RedisSteps:
    """What can be done in one step. With a `token` the new key has been reserved under it."""

    def __init__(self, link: RedisLink, layout: Layout, clock: Clock) -> None:
        self.link = link
        self.layout = layout
        self.clock = clock
        self.recent = RecentRecords()

    def run(self, script: Script, keys: Sequence[bytes], *args: bytes | int) -> Awaitable[Reply]:
        """Run a script, as of now."""
        return self.link.run(script, keys, self.clock.now(), *args)

    async def create(self, key: str, entry: Entry, limit: int, token: bytes = _NO_TOKEN) -> tuple[str, ...]:
        """Begin a session. Returns what was ended for the limit."""
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
        began = asyncio.get_running_loop().time()
        reply = await self.link.run(scripts.REPLACE, [self.layout.prefix + member], now, version, value, ttl)
        if type(reply) is not int:
            try:  # within the time of one step, though it takes two
                async with asyncio.timeout_at(began + self.link.keeps_within):
                    reply = await self._write_indexed(scripts.REPLACE, member, entry, expires_at, now, version, value, ttl)
            except TimeoutError:
                report_outage("timeout")
        if reply != new:
            return expect(reply)
        self.recent.wrote(key, value, new, entry)
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
    ) -> tuple[str, ...]:
        """Move a session. Returns what was ended for the limit."""
        reply = await self.run(
            scripts.ROTATE,
            [self.layout.record(old_key), self.layout.record(new_key), *self._indexes_beside(entry)],
            version,
            encode_record(1, entry),
            self.ttl(entry.expires_at),
            pointer_to(new_key, successor_until),
            self.ttl(successor_until),
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

    async def finish(self, member: bytes, *, owned: bytes = b"", keep: bytes = b"", hold_ms: int = 0) -> tuple[str, ...]:
        """End a session, or what it was rotated to; with `hold_ms` also a login under way. Returns the key."""
        name = self.layout.prefix + member
        ended: list[bytes] = await self.run(scripts.FINISH, [name], self.layout.prefix, member, owned, keep, hold_ms)
        return tuple(key_of(member) for member in ended)

    async def enlist(self, index: bytes, member: bytes, expires_at: int, *, want_all: bool = False) -> list[bytes]:
        """Put a name into an index. Returns all names when asked, and now and then when the index may need cleaning."""
        args = (member, self.index_ttl(expires_at), b"1" if want_all else b"")
        members: list[bytes] = await self.run(scripts.ENLIST, [index], *args)
        return members

    def ttl(self, expires_at: int) -> int:
        """Milliseconds from now; 0 when it is over."""
        return max(expires_at - self.clock.now(), 0)

    def index_ttl(self, expires_at: int) -> int:
        """Milliseconds for which an index is kept that has a member until `expires_at`."""
        return max(_index_end(expires_at) - self.clock.now(), 1)

    async def _write_indexed(self, script: Script, member: bytes, entry: Entry, expires_at: int, *arguments: bytes | int) -> int:
        """Change a record and its indexes in the same step; on a cluster, the indexes before it."""
        if self.link.clustered:
            for index in self.layout.indexes(entry):
                await self.enlist(index, member, expires_at)
        keys, index_ttl = [self.layout.prefix + member, *self._indexes_beside(entry)], self.index_ttl(expires_at)
        reply: int = await self.link.run(script, keys, *arguments, member, index_ttl, self.layout.prefix)
        return reply

    def _indexes_beside(self, entry: Entry) -> list[bytes]:
        """The indexes that change in the same step as the record."""
        return [] if self.link.clustered else self.layout.indexes(entry)


def _index_end(expires_at: int) -> int:
    return (expires_at // INDEX_CELL_MS + 2) * INDEX_CELL_MS


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


def _ended(reply: list[Reply]) -> tuple[str, ...]:
    expect(reply[0])
    return tuple(key_of(member) for member in reply[1:])
