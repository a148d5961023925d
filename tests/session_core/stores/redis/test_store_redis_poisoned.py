"""Foreign values, and scripts that a server aborts: no user is locked out, nothing is applied twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from session_core.errors import StoreUnavailableError
from session_core.ids import new_session_id, session_key
from session_core.stores.base import Entry
from session_core.stores.redis.layout import encode_record, member_of
from session_core.stores.redis.store import RedisStore
from tests.support.redis_servers import RedisServer, needed_valkey, running, statistics

pytestmark = pytest.mark.anyio
FOREVER = 2**41
KEY = session_key(new_session_id())
WHOLE = encode_record(1, Entry(b"data", FOREVER, "a user of any name", "op", 0))
LATIN = encode_record(1, Entry(b"data", FOREVER, "user", "op", 0)).replace(b"user", b"\xe4\xf6\xfc\xff")


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with running(needed_valkey()) as server:
        yield server


@pytest.fixture
async def store(own_server: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(own_server.url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    "value",
    [
        LATIN,
        *(WHOLE[:length] for length in range(1, len(WHOLE) - 4)),
        b"\xc1" + bytes(10),
        b"\xff" * 9,
        b"\x8a",
        b"\x9a\x00\x00\x00",
    ],
)
async def test_a_foreign_value_is_no_outage_and_can_be_deleted(store: RedisStore, own_server: RedisServer, value: bytes) -> None:
    own_server.admin("SET", b"sc:" + member_of(KEY), value)
    found = await store.load(KEY)
    assert found is None or found.entry.data != b"data"
    await store.delete(KEY)
    await store.touch(KEY, FOREVER + 1)


async def test_an_aborted_script_is_not_repeated_from_the_start(store: RedisStore, own_server: RedisServer) -> None:
    await store.create(KEY, Entry(b"1", FOREVER - 10**8, "user", None, 0))
    own_server.admin("ACL", "SETUSER", "default", "-pexpire")
    try:
        with pytest.raises(StoreUnavailableError):
            await store.replace(KEY, Entry(b"2", FOREVER, "user", None, 0), version=1)
    finally:
        own_server.admin("ACL", "SETUSER", "default", "+pexpire")


async def test_a_full_server_is_called_once(store: RedisStore, own_server: RedisServer) -> None:
    await store.create(KEY, Entry(b"1", FOREVER, None, None, 0))
    own_server.admin("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(StoreUnavailableError):
        await store.replace(KEY, Entry(b"22", FOREVER, None, None, 0), version=1)
    refused = statistics(own_server, "errorstats")
    assert refused["errorstat_OOM"]["count"] == 1
