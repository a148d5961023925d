"""What is remembered of sessions costs a process little memory, and is never taken for what the store says now."""

from __future__ import annotations

import msgspec
import pytest

from session_core.ids import new_session_id, session_key
from session_core.recent import Recent
from session_core.stores import MemoryStore
from session_core.stores.base import Entry, StoredSession
from session_core.stores.redis.layout import RecentRecords, decode_record, encode_record
from session_core.testing import FakeClock
from tests.support.sessions import ALICE, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio


def test_the_first_goes_when_there_are_too_many() -> None:
    recent: Recent[int] = Recent(limit=3)
    for number in range(5):
        recent.put(str(number), number, 1)
    assert [recent.get(str(number)) for number in range(5)] == [None, None, 2, 3, 4]
    recent.put("2", 20, 1)
    recent.put("5", 5, 1)
    assert recent.get("2") is None  # first to come, though it has changed since
    assert recent.get("3") == 3


def test_what_is_large_is_not_kept_and_takes_what_was_there_with_it() -> None:
    recent: Recent[str] = Recent(max_bytes=10)
    recent.put("key", "small", 10)
    assert recent.get("key") == "small"
    recent.put("key", "large", 11)
    assert recent.get("key") is None


KEY = session_key(new_session_id())
ENTRY = Entry(b"data", 2_000_000_000_000, ALICE.user_key, ALICE.op_session_key, 1_700_000_000_000)


def test_the_same_bytes_are_the_same_session_and_any_others_are_read_anew() -> None:
    records, value = RecentRecords(), encode_record(1, ENTRY)
    first = records.decode(KEY, value, 0)
    assert first == StoredSession(KEY, 1, ENTRY)
    assert records.decode(KEY, bytes(bytearray(value)), 0) is first
    for place in range(len(value)):
        other = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
        found = records.decode(KEY, other, 0)
        assert found == decode_record(KEY, other, 0)
        assert found != first
    assert records.decode(KEY, None, 0) is None
    assert records.decode(KEY, value, 0) == first


def test_what_was_written_is_found_only_where_the_store_has_it() -> None:
    records = RecentRecords()
    written = encode_record(2, ENTRY)
    records.wrote(KEY, written, 2, ENTRY)
    found = records.decode(KEY, bytes(bytearray(written)), 0)
    assert found is not None
    assert found.entry is ENTRY
    touched = encode_record(2, msgspec.structs.replace(ENTRY, expires_at=ENTRY.expires_at + 1))
    assert records.decode(KEY, touched, 0) == StoredSession(
        KEY, 2, msgspec.structs.replace(ENTRY, expires_at=ENTRY.expires_at + 1)
    )


def test_a_session_that_is_remembered_expires_as_any_other() -> None:
    records, value = RecentRecords(), encode_record(1, ENTRY)
    assert records.decode(KEY, value, ENTRY.expires_at - 1) is not None
    assert records.decode(KEY, value, ENTRY.expires_at) is None


async def test_two_requests_share_no_data_that_can_be_changed() -> None:
    """The record that is remembered is handed to every request of the session: nothing in it may belong to one of them."""
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


async def test_the_absolute_end_is_kept_also_where_a_store_says_that_the_session_lives_longer() -> None:
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
