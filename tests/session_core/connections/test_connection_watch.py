"""The connection watch, when the store changes between two polls."""

from __future__ import annotations

import asyncio

import pytest

from session_core.connections.watch import ConnectionWatch
from session_core.sessions.record import Device
from session_core.sessions.snapshot import Snapshot
from session_core.stores import MemoryStore
from session_core.stores.base import StoredSession
from session_core.testing import FakeClock
from tests.support.sessions import make_app, plugin_in

pytestmark = pytest.mark.anyio
NO_BEAT = 3600.0


class EndsOnceSeen(MemoryStore):
    """Ends a session right after it was found under its new key, before an announcement for that key can arrive."""

    old_key: str | None = None

    async def load(self, key: str) -> StoredSession | None:
        found = await super().load(key)
        if self.old_key is not None and key != self.old_key:
            await self.delete(key)
        return found


class Connection:
    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def end(self, reason: str) -> None:
        assert reason == "ended"
        self.ended.set()

    def follow(self, session: Snapshot) -> None:
        del session


async def test_a_session_that_ends_while_being_followed_is_noticed_before_the_next_poll() -> None:
    clock = FakeClock()
    store = EndsOnceSeen(clock=clock)
    plugin = plugin_in(make_app(store=store, clock=clock))
    await plugin.store.open()
    _, before = await plugin.lifecycle.begin(b"\x80", device=Device())
    connection = Connection()
    watch = ConnectionWatch(plugin.store, clock, interval=NO_BEAT, push=False, on_outage=pytest.fail)
    watch.add(connection, before)
    try:
        store.old_key = before.key
        await plugin.lifecycle.regenerate(before, lambda record: record)
        watch.hint([before.key])
        async with asyncio.timeout(30):
            await connection.ended.wait()
        assert await plugin.store.load(before.key) is None
    finally:
        await watch.close()
