"""Lists and revokes the sessions of users among very many others in Redis, and weighs what so many sessions take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Final

from benchmarks.filler import Filler
from benchmarks.payload import FIELDS, ISSUER, SECRET
from benchmarks.redis_facts import bytes_in
from benchmarks.results import Results, Scale
from benchmarks.servers import RedisServer
from benchmarks.stacks.ours import AppSession
from session_core import Device, Identity, SessionConfig, SessionPlugin
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry

__all__ = ("measure_scale",)

_USERS: Final = 40
_PER_USER: Final = (1, 5, 50)
_STORED_BYTES: Final = 300
_HOUR_MS: Final = 3_600_000


def measure_scale(server: RedisServer, sizes: tuple[int, ...], results: Results, say: Callable[[str], None]) -> None:
    """Fill an empty Redis to each of `sizes` (ascending) and measure there."""
    asyncio.run(_measure_all(server, sizes, results, say))


async def _measure_all(server: RedisServer, sizes: tuple[int, ...], results: Results, say: Callable[[str], None]) -> None:
    plugin = SessionPlugin(SessionConfig(AppSession, store=server.url, secrets=[SECRET]))
    await plugin.store.open()
    results.stored_bytes = await _weigh(plugin, server)
    empty = _used_memory(server)
    await _begin(plugin, Identity(issuer=ISSUER, subject="first", sid="first"))
    filler = Filler(server.port, Identity(issuer=ISSUER, subject="first", sid="first"))
    for size in sizes:
        say(f"{size:,} sessions in Redis")
        filler.fill(size)
        results.scale_bytes = (_used_memory(server) - empty) / size
        for per_user in _PER_USER:
            results.scales.append(await _measure(plugin, size, per_user))
    await plugin.store.close()


async def _weigh(plugin: SessionPlugin, server: RedisServer) -> int:
    """What 300 bytes take that belong to a user and a session at the provider without another: both indexes are for it alone."""
    identity = Identity(issuer=ISSUER, subject="weighed", sid="weighed")
    now = time.time_ns() // 1_000_000
    entry = Entry(bytes(_STORED_BYTES), now + _HOUR_MS, identity.user_key, identity.op_session_key, now)
    await plugin.store.create(session_key(new_session_id()), entry)
    weight = bytes_in(server.port, 0)
    server.admin("FLUSHDB")
    return weight


async def _measure(plugin: SessionPlugin, size: int, per_user: int) -> Scale:
    listed, revoked = [], []
    for number in range(_USERS):
        identity = Identity(issuer=ISSUER, subject=f"{size}-{per_user}-{number}", sid=f"op-{number}")
        for _ in range(per_user):
            await _begin(plugin, identity)
        begin = time.perf_counter_ns()
        found = await plugin.sessions.list_for(identity)
        middle = time.perf_counter_ns()
        ended = await plugin.sessions.revoke_all(identity)
        listed.append(middle - begin)
        revoked.append(time.perf_counter_ns() - middle)
        if len(found) != per_user or ended != per_user:
            msg = f"{len(found)} sessions were listed and {ended} revoked, of {per_user}"
            raise RuntimeError(msg)
    return Scale(size, per_user, median(listed) / 1000, median(revoked) / 1000)


async def _begin(plugin: SessionPlugin, identity: Identity) -> None:
    data = plugin.lifecycle.codec.encode(AppSession(**FIELDS))
    await plugin.lifecycle.begin(data, device=Device(ip="127.0.0.1", user_agent="benchmarks"), identity=identity)


def _used_memory(server: RedisServer) -> int:
    reply = server.admin("INFO", "memory")
    lines = reply.split(b"\r\n") if isinstance(reply, bytes) else []
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"used_memory:"))
