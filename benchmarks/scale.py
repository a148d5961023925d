"""Lists and revokes a user's sessions among very many others, and measures the memory of so many sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.filler import Filler, fill_postgresql, fill_sqlite
from benchmarks.payload import FIELDS, ISSUER, SECRET
from benchmarks.redis_facts import bytes_in
from benchmarks.results import Results, Scale
from benchmarks.rounds import Engines
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
_FIRST: Final = Identity(issuer=ISSUER, subject="first", sid="first")
"""The identity of the copied session."""


@dataclass(frozen=True)
class _Filled:
    """A store to fill: name, URL, and a function that fills it to a size and returns the bytes per session."""

    engine: str
    url: str
    fill: Callable[[int], Awaitable[float]]


def measure_scale(engines: Engines, sizes: tuple[int, ...], results: Results, say: Callable[[str], None]) -> None:
    """Fill an empty store of each engine to each of `sizes` (ascending) and measure there."""
    asyncio.run(_measure_all(engines, sizes, results, say))


async def _measure_all(engines: Engines, sizes: tuple[int, ...], results: Results, say: Callable[[str], None]) -> None:
    server, postgresql = engines.redis, engines.postgresql
    plugin = _plugin(server.url)
    await plugin.store.open()
    results.stored_bytes = await _weigh(plugin, server)
    await plugin.store.close()
    file = engines.directory / "scale.db"
    stores = [_redis(server), _Filled("SQLite", f"sqlite:///{file}", _in_thread(fill_sqlite, file))]
    if postgresql is not None:
        stores.append(_Filled("PostgreSQL", postgresql, partial(fill_postgresql, postgresql)))
    results.scales = [scale for store in stores for scale in await _measure_store(store, sizes, results, say)]


async def _measure_store(store: _Filled, sizes: tuple[int, ...], results: Results, say: Callable[[str], None]) -> list[Scale]:
    plugin = _plugin(store.url)
    await plugin.store.open()
    await _begin(plugin, _FIRST)
    scales = []
    for size in sizes:
        say(f"{size:,} sessions in {store.engine}")
        results.scale_bytes[store.engine] = await store.fill(size)
        scales += [await _measure(plugin, store.engine, size, per_user) for per_user in _PER_USER]
    await plugin.store.close()
    return scales


def _redis(server: RedisServer) -> _Filled:
    empty = _used_memory(server)
    fillers: list[Filler] = []

    async def fill(size: int) -> float:
        if not fillers:
            fillers.append(Filler(server.port, _FIRST))
        await asyncio.to_thread(fillers[0].fill, size)
        return (_used_memory(server) - empty) / size

    return _Filled("Redis", server.url, fill)


def _in_thread(fill: Callable[[Path, int], float], path: Path) -> Callable[[int], Awaitable[float]]:
    return lambda size: asyncio.to_thread(fill, path, size)


def _plugin(url: str) -> SessionPlugin:
    return SessionPlugin(SessionConfig(AppSession, store=url, secrets=[SECRET], sweep_interval=0))


async def _weigh(plugin: SessionPlugin, server: RedisServer) -> int:
    """The memory of 300 bytes of a session without siblings, so that both indexes exist for it alone."""
    identity = Identity(issuer=ISSUER, subject="weighed", sid="weighed")
    now = time.time_ns() // 1_000_000
    entry = Entry(bytes(_STORED_BYTES), now + _HOUR_MS, identity.user_key, identity.op_session_key, now)
    await plugin.store.create(session_key(new_session_id()), entry)
    weight = bytes_in(server.port, 0)
    server.admin("FLUSHDB")
    return weight


async def _measure(plugin: SessionPlugin, engine: str, size: int, per_user: int) -> Scale:
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
    return Scale(engine, size, per_user, median(listed) / 1000, median(revoked) / 1000)


async def _begin(plugin: SessionPlugin, identity: Identity) -> None:
    data = plugin.lifecycle.codec.encode(AppSession(**FIELDS))
    await plugin.lifecycle.begin(data, device=Device(ip="127.0.0.1", user_agent="benchmarks"), identity=identity)


def _used_memory(server: RedisServer) -> int:
    reply = server.admin("INFO", "memory")
    lines = reply.split(b"\r\n") if isinstance(reply, bytes) else []
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"used_memory:"))
