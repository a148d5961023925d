"""Sessions in Redis or Valkey (6.2 and later): one server, a primary behind Sentinels, or a cluster.

A session is one string; reading it is one GET, writing it one script, and neither ever waits for a connection: all requests of
a process share one, on which the commands of one turn of the event loop travel together. The bytes are described in
`session_core.stores.redis.layout`, the atomic steps in `scripts` and its Lua files, what a lost connection means in `link`.

**Time.** `expires_at` is compared with the caller's clock; the server only gets how long that is from now, and removes what is
over by itself. A clock that is wrong by five minutes shortens or extends sessions by as much, and does nothing else.

**Deadlines.** No step takes effect after the deadline of its request, whenever a stalled server goes on: every script compares it
with the server's clock (`connection.ServerClock`).

**Indexes** hold names, not sessions. A name is there before its record is, and every reader of an index asks the records: one too
many is dropped when nothing is left under it, one too few cannot be. They expire within two hours of their last session.

**A user with very many sessions** delays no other user: listing and ending go through an index a hundred members at a time, and a
login that would have to look at more than a few hundred sessions is made in several steps.

**On a cluster** a record, what it is rotated to and what remembers that are in one slot, thanks to the slot tag in session keys
(`session_core.ids`): rotation is one script, hence atomic whatever is killed when. The indexes are in other slots. So a
login first reserves its key, then enters the indexes, then ends the sessions above the limit, and only then becomes a session
(`cluster_login`). There are never more than the limit; but a login that is killed half-way may have ended the session whose
place it was to take, and `delete_by` ends sessions one by one. While a slot is being moved to another node key by key, rotations
in it wait (`TRYAGAIN`), and fail when `timeout` is over.

**Announcements.** The step that ends or moves a session publishes it on the channel `{prefix}ended`; a cluster passes it on to
every node. The user of the URL needs the right to that channel (`&sc:*` for the usual prefix); without it the steps are still
made.

**Durability** is the server's: with `appendonly yes` and `appendfsync everysec` a crash loses the last second, with replicas a
failover loses what the old primary had not passed on yet (usually milliseconds; `WAIT` is not used, and would narrow that, not
close it). That includes a logout: it may come undone by a failover within these milliseconds. Where that is too much, use the
SQL store. Eviction must be off (`maxmemory-policy noeviction`): an evicted record is a lost session. Full memory is an outage
for logins and writes, while reading and logging out go on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from session_core.clock import Clock, SystemClock
from session_core.stores.announcements import Heard, Trace, announced_name
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession, keeps_time
from session_core.stores.cancellation import keeping_cancellation
from session_core.stores.redis import scripts
from session_core.stores.redis.cluster import ClusterLink
from session_core.stores.redis.cluster_login import SteppedLogins
from session_core.stores.redis.connection import report_outage
from session_core.stores.redis.layout import TRACE_BYTES, Layout, decode_trace, key_of, member_of, owner_bytes, read_record
from session_core.stores.redis.link import RedisLink, gather_all, link_to_one, portions
from session_core.stores.redis.steps import RedisSteps
from session_core.stores.redis.url import parse_redis_url

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

__all__ = ("RedisStore",)

_CLAIM_TOKEN_BYTES: Final = 8
_LEAST_HOLD_SECONDS: Final = 10
_MESSAGE: Final = b"message"


class RedisStore:
    """Sessions on the servers that `url` names (`session_core.stores.redis.url` lists the forms and options).

    `timeout` is in seconds, for connecting and for each reply; a call makes one to four of these. `prefix` begins the name of
    every key. The options of the URL win over both.

    Raises `ConfigurationError` for a URL it cannot use. `durable` in the capabilities is as true as the server's configuration
    makes it (see the module).
    """

    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=True)
    pushes = True

    def __init__(self, url: str, *, clock: Clock | None = None, timeout: float = 2.0, prefix: str = "sc:") -> None:
        target = parse_redis_url(url, timeout=timeout, prefix=prefix)
        self._link: RedisLink = ClusterLink(target) if target.kind == "cluster" else link_to_one(target)
        self._layout = Layout(target.prefix.encode())
        self._clock = clock or SystemClock()
        self._timeout = target.timeout
        self.keeps_within = self._link.keeps_within
        self._steps = RedisSteps(self._link, self._layout, self._clock)
        self._stepped_logins = SteppedLogins(self._steps, hold=max(_LEAST_HOLD_SECONDS, 5 * target.timeout))

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
        return read_record(key, value, self._clock.now())

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        limit = max(limit, 0) if entry.user is not None else 0
        ended = None
        if not (self._link.clustered and self._layout.indexes(entry)):
            ended = await self._steps.create(key, entry, limit)
        return await self._stepped_logins.create(key, entry, limit) if ended is None else ended

    @keeps_time
    def replace(self, key: str, entry: Entry, *, version: int) -> Coroutine[Any, Any, int]:
        """See `SessionStore.replace`."""
        return self._steps.replace(key, entry, version)

    @keeps_time
    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`.

        Raises `ConfigurationError` on a cluster for keys that do not end in the same slot tag, as those of the library do.
        """
        limit = max(limit, 0) if entry.user is not None else 0
        ended, by = None, monotonic() + self.keeps_within
        if self._link.clustered:
            self._layout.check_one_slot(old_key, new_key)
        if not (self._link.clustered and self._layout.indexes(entry)):
            ended = await self._steps.rotate(
                old_key, new_key, entry, version=version, successor_until=successor_until, limit=limit
            )
        if ended is None:
            try:  # within the time of one step, though it takes several
                async with asyncio.timeout(by - monotonic()):
                    ended = await self._stepped_logins.rotate(
                        old_key, new_key, entry, version=version, successor_until=successor_until, limit=limit
                    )
            except TimeoutError:
                report_outage("timeout")
        return ended

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
        found: list[StoredSession] = []
        async for portion in self._steps.values(self._layout.index(index)):
            now = self._clock.now()
            for member, value in portion:
                stored = read_record(key_of(member), value, now)
                if stored is not None and index.selects(stored.entry.user, stored.entry.op_session):
                    found.append(stored)
        return found

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`."""
        owned = (b"u" if index.user is not None else b"o") + owner_bytes(index.user or index.op_session)
        return await self._steps.finish_all(self._layout.index(index), owned=owned, keep=b"" if keep is None else member_of(keep))

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
            for some in portions(names):
                values = await self._link.read(some)
                now = self._clock.now()
                for name, value in zip(some, values, strict=True):
                    stored = read_record(self._layout.session_key(name), value, now)
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

    def announced_name(self, key: str) -> str:
        """See `RevocationFeed.announced_name`."""
        return announced_name(member_of(key))

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`."""
        asked = (self._link.call(b"GETRANGE", self._layout.record(key), 0, TRACE_BYTES - 1) for key in keys)
        values: list[bytes] = await gather_all(asked)
        now = self._clock.now()
        traces = ((key, decode_trace(value, now)) for key, value in zip(keys, values, strict=True))
        return {key: trace for key, trace in traces if trace is not None}

    async def listen(self, heard: Heard, *, patience: float) -> None:
        """See `RevocationFeed.listen`. Takes a separate connection."""
        connection: AbstractConnection | None = None
        try:
            async with asyncio.timeout(self._timeout):
                with keeping_cancellation():
                    connection = await self._link.apart()
                    await connection.connect()  # type: ignore[no-untyped-call] # redis-py's own
                    await connection.send_command("SUBSCRIBE", self._layout.channel())
                await connection.read_response()
            heard(None)
            while True:
                heard(await _next_names(connection, patience))
        except (RedisError, OSError, TimeoutError) as error:
            report_outage(type(error).__name__)
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)


async def _next_names(connection: AbstractConnection, patience: float) -> list[str]:
    """Return the names of the next message; none when the server was silent and has answered a PING."""
    # None is what redis-py answers to a read that took too long; the rest of a message that came in pieces is read the next time.
    reply: Any = await connection.read_response(timeout=patience)
    if reply is None:
        async with asyncio.timeout(patience):
            with keeping_cancellation():
                await connection.send_command("PING")
            reply = await connection.read_response()
    kind, _, *payload = reply
    return payload[0].decode("ascii", "replace").split() if kind == _MESSAGE else []
