"""The shared connection of the Redis store when `close` runs while it is being established."""

from __future__ import annotations

import asyncio

import pytest

from session_core.stores.redis.connection import SharedConnection
from session_core.stores.redis.link import SingleLink
from session_core.stores.redis.store import RedisStore
from tests.support.redis_servers import needed_valkey, running

pytestmark = pytest.mark.anyio


async def test_a_connection_made_during_close_is_closed() -> None:
    """The connecting task has ended, but its waiters have not resumed, when `close` collects the open connections."""
    with running(needed_valkey()) as server:
        link = RedisStore(server.url)._link
        assert isinstance(link, SingleLink)
        endpoint, made = link._endpoint, list[SharedConnection]()
        connect, closing = endpoint._connect, list[asyncio.Task[None]]()

        async def connect_and_close() -> SharedConnection:
            made.append(await connect())
            closing.append(asyncio.create_task(endpoint.close()))
            return made[0]

        endpoint._connect = connect_and_close  # type: ignore[method-assign]
        await asyncio.gather(endpoint.connected(), return_exceptions=True)
        await asyncio.gather(*closing)
        assert [connection.lost for connection in made] == [True]
        assert endpoint.current() is None
