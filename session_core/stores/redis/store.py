"""Sessions in Redis or Valkey (6.2 and later): one server, a primary behind Sentinels, or a cluster.

A session is one string; reading it is one GET, writing it one script, and neither ever waits for a connection: all requests of
a process share one, on which the commands of one turn of the event loop travel together. The bytes are described in
`session_core.stores.redis.layout`, the atomic steps in `redis_scripts`, what a lost connection means in `redis_link`.

**Time.** `expires_at` is compared with the caller's clock; the server only gets how long that is from now, and removes what is
over by itself. A clock that is wrong by five minutes shortens or extends sessions by as much, and does nothing else.

**Indexes** hold names, not sessions. A name is there before its record is, and whoever reads an index asks the records: one too
many is dropped when its record is gone from the server, one too few cannot be. They expire within two hours of their last
session.

**On a cluster** a record, what it is rotated to and what remembers that are in one slot, thanks to the slot tag in session keys
(`session_core.ids`): rotation is one script, hence atomic whatever is killed when. The indexes are in other slots. So a
login first reserves its key, then enters the indexes, then ends the sessions above the limit, and only then becomes a session
(`redis_reservation`). There are never more than the limit; but a login that is killed half-way may have ended the session whose
place it was to take, and `delete_by` ends sessions one by one. While a slot is being moved to another node key by key, rotations
in it wait (`TRYAGAIN`), and fail when `timeout` is over.

**Durability** is the server's: with `appendonly yes` and `appendfsync everysec` a crash loses the last second, with replicas a
failover loses what the old primary had not passed on yet (usually milliseconds; `WAIT` is not used, and would narrow that, not
close it). That includes a logout: it may come undone by a failover within these milliseconds. Where that is too much, use the
SQL store. Eviction must be off (`maxmemory-policy noeviction`): an evicted record is a lost session. Full memory is an outage
for logins and writes, while reading and logging out go on.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from session_core.clock import Clock, SystemClock
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession, keeps_time
from session_core.stores.redis import scripts
from session_core.stores.redis.cluster import ClusterLink
from session_core.stores.redis.cluster_login import Reservations
from session_core.stores.redis.feed import RedisFeed
from session_core.stores.redis.layout import Layout, decode_record, is_live_format, key_of, member_of, owner_bytes, read_index
from session_core.stores.redis.link import SingleLink, gather
from session_core.stores.redis.sentinel import SentinelLocator
from session_core.stores.redis.steps import RedisSteps
from session_core.stores.redis.url import parse_redis_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from redis.asyncio.connection import AbstractConnection

    from session_core.stores.redis.link import RedisLink
    from session_core.stores.redis.url import RedisTarget

__all__ = ("RedisStore",)

_CLAIM_TOKEN_BYTES: Final = 8
_LEAST_HOLD_SECONDS: Final = 10


class RedisStore(RedisFeed):
    """Sessions on the servers that `url` names (`session_core.stores.redis.url` lists the forms and options).

    `timeout` is in seconds, for connecting and for each reply; a call makes one to four of these. `prefix` begins the name of
    every key. The options of the URL win over both.

    Raises `ConfigurationError` for a URL it cannot use. `durable` in the capabilities is as true as the server's configuration
    makes it (see the module).
    """

    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=True)

    def __init__(self, url: str, *, clock: Clock | None = None, timeout: float = 2.0, prefix: str = "sc:") -> None:
        target = parse_redis_url(url, timeout=timeout, prefix=prefix)
        super().__init__(_link_to(target), Layout(target.prefix.encode()), clock or SystemClock(), target.timeout)
        self.keeps_within = self._link.keeps_within
        self._steps = RedisSteps(self._link, self._layout, self._clock)
        self._reservations = Reservations(self._steps, hold_ms=round(max(_LEAST_HOLD_SECONDS, 5 * target.timeout) * 1000))

    async def open(self) -> None:
        """See `SessionStore.open`."""
        await self._link.open()

    async def close(self) -> None:
        """See `SessionStore.close`. It may be opened again."""
        await self._link.close()

    async def ping(self) -> None:
        """See `SessionStore.ping`. Writes to every primary: a replica or a full server answers reads, and is no store."""
        await self._link.try_write(self._layout.prefix)

    @keeps_time
    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        value = await self._link.get(self._layout.prefix + member_of(key))
        return self._steps.recent.decode(key, value, self._clock.now())

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        limit = max(limit, 0) if entry.user is not None else 0
        if self._link.clustered and self._layout.indexes(entry):
            return await self._reservations.create(key, entry, limit)
        return await self._steps.create(key, entry, limit)

    @keeps_time
    def replace(self, key: str, entry: Entry, *, version: int) -> Coroutine[Any, Any, int]:
        """See `SessionStore.replace`."""
        return self._steps.replace(key, entry, version)

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`.

        Raises `ConfigurationError` on a cluster for keys that do not end in the same slot tag, as those of the library do.
        """
        limit = max(limit, 0) if entry.user is not None else 0
        if self._link.clustered:
            self._layout.check_one_slot(old_key, new_key)
        mover = self._reservations if self._link.clustered and self._layout.indexes(entry) else self._steps
        return await mover.rotate(old_key, new_key, entry, version=version, successor_until=successor_until, limit=limit)

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        live = await self._steps.touch(key, None, expires_at)
        if live is not None:
            return live
        stored = await self.load(key)
        return stored is not None and bool(await self._steps.touch(key, stored.entry, expires_at))

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""
        return await self._steps.finish(member_of(key))

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        name = self._layout.index(index)
        members = read_index(await self._link.get(name))
        values = await self._link.read([self._layout.prefix + member for member in members])
        # What is gone from the server never comes back under its key. A record that only the clock calls expired stays in: the
        # clock may be wrong.
        gone = [member for member, value in zip(members, values, strict=True) if not is_live_format(value)]
        if gone:
            await self._steps.run(scripts.DELIST, [name], *gone)
        now = self._clock.now()
        found = (decode_record(key_of(member), value, now) for member, value in zip(members, values, strict=True))
        return [stored for stored in found if stored is not None and _belongs(stored.entry, index)]

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`."""
        name, kept = self._layout.index(index), b"" if keep is None else member_of(keep)
        owned = (b"u" if index.user is not None else b"o") + owner_bytes(index.user or index.op_session)
        if not self._link.clustered:
            swept: list[bytes] = await self._steps.run(scripts.SWEEP, [name], self._layout.prefix, owned, kept)
            return tuple(key_of(member) for member in swept)
        # Whatever was live is in the index, or is what a member of it was rotated to meanwhile.
        members = read_index(await self._link.get(name))
        ended = await gather([self._steps.finish(member, owned=owned, keep=kept) for member in members])
        return tuple(key for keys in ended for key in keys)

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`. The server does that."""
        del limit
        return 0

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`. Remembers 8 bytes per session: SCAN may give one twice."""
        seen: set[int] = set()
        async for page in self._link.scan(self._layout.records_pattern()):
            names = [name for name in dict.fromkeys(page) if hash(name) not in seen]
            seen.update(map(hash, names))
            values = await self._link.read(names)
            now = self._clock.now()
            for name, value in zip(names, values, strict=True):
                stored = decode_record(self._layout.session_key(name), value, now)
                if stored is not None:
                    yield stored

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        value = expires_at.to_bytes(8) + secrets.token_bytes(_CLAIM_TOKEN_BYTES)
        return bool(await self._steps.run(scripts.CLAIM, [self._layout.claim(name)], value, self._steps.ttl(expires_at)))

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        value = await self._link.get(self._layout.claim(name))
        until = int.from_bytes(value[:8]) if value else 0
        return until if until > self._clock.now() else None


def _belongs(entry: Entry, index: SessionIndex) -> bool:
    return entry.user == index.user if index.user is not None else entry.op_session == index.op_session


def _link_to(target: RedisTarget) -> RedisLink:
    if target.kind == "cluster":
        return ClusterLink(target)
    if target.kind == "sentinel":
        return SingleLink(target, SentinelLocator(target).locate)

    async def locate() -> AbstractConnection:
        return target.connection(target.addresses[0])

    return SingleLink(target, locate)
