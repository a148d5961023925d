"""The cache of decoded records: bounded memory, and never used in place of the store's current bytes."""

from __future__ import annotations

import msgspec
import pytest

from session_core.recent import Recent
from session_core.stores import MemoryStore
from session_core.stores.base import StoredSession
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio


def test_the_oldest_entry_is_evicted() -> None:
    recent: Recent[int] = Recent(limit=3)
    for number in range(5):
        recent.put(str(number), number, 1)
    assert [recent.get(str(number)) for number in range(5)] == [None, None, 2, 3, 4]
    recent.put("2", 20, 1)
    recent.put("5", 5, 1)
    assert recent.get("2") is None  # first inserted, although it has changed since
    assert recent.get("3") == 3


def test_a_large_value_is_not_cached_and_removes_the_previous_one() -> None:
    recent: Recent[str] = Recent(max_bytes=10)
    recent.put("key", "small", 10)
    assert recent.get("key") == "small"
    recent.put("key", "large", 11)
    assert recent.get("key") is None


class Answering(MemoryStore):
    """A store that returns given bytes, as if they had changed outside the application."""

    changed: StoredSession | None = None

    async def load(self, key: str) -> StoredSession | None:
        found = await super().load(key)
        if found is None or self.changed is not None:
            return self.changed
        # A new object each time, as from a server.
        return StoredSession(
            found.key, found.version, msgspec.structs.replace(found.entry, data=bytes(bytearray(found.entry.data)))
        )


async def test_equal_bytes_are_decoded_once_and_others_again() -> None:
    store = Answering()
    plugin = plugin_in(make_app(store=store))
    await plugin.store.open()
    begun = handle_on(plugin)
    await begun.login(ALICE)
    session_id, key = begun.session_id, begun.key
    first = await plugin.lifecycle.load(session_id)
    assert first is await plugin.lifecycle.load(session_id)
    stored = await MemoryStore.load(store, key)
    assert stored is not None
    others = [
        msgspec.structs.replace(stored, version=stored.version + 1),
        msgspec.structs.replace(stored, entry=msgspec.structs.replace(stored.entry, expires_at=stored.entry.expires_at + 1)),
    ]
    for other in others:
        store.changed = other
        found = await plugin.lifecycle.load(session_id)
        assert found is not first
        assert (found.version, found.expires_at) == (other.version, other.entry.expires_at)
    for place in range(len(stored.entry.data)):
        raw = stored.entry.data
        damaged = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        store.changed = msgspec.structs.replace(stored, entry=msgspec.structs.replace(stored.entry, data=damaged))
        assert await plugin.lifecycle.load(session_id) is not first
    store.changed = stored
    assert (await plugin.lifecycle.load(session_id)) == first


async def test_two_requests_share_no_mutable_data() -> None:
    """The cached record is used by every request of the session, so no mutable part may be shared."""
    clock = FakeClock()
    plugin = plugin_in(make_app(store=MemoryStore(clock=clock), clock=clock))
    await plugin.store.open()
    begun = handle_on(plugin)
    await begun.login(ALICE)
    one, two = handle_on(plugin, begun.session_id), handle_on(plugin, begun.session_id)
    await one.load()
    await two.load()
    assert one.snapshot is two.snapshot
    one.data.cart.append("of one request")
    assert two.data.cart == []
    assert (await handle_on(plugin, begun.session_id).load()).data.cart == []


async def test_the_absolute_expiry_holds_when_the_store_keeps_the_session_longer() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    plugin = plugin_in(make_app(store=store, clock=clock))
    await plugin.store.open()
    begun = handle_on(plugin)
    await begun.login(ALICE)
    end = begun.absolute_expires_at
    assert await store.touch(begun.key, end + 10_000)
    clock.advance(seconds=(end - 1 - clock.now()) / 1000)
    assert (await handle_on(plugin, begun.session_id).load()).exists
    clock.advance(seconds=0.001)
    assert not (await handle_on(plugin, begun.session_id).load()).exists
