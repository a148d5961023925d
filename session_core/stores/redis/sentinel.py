"""Asks Sentinels who the primary is; knows no session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from session_core.stores.redis.connection import unavailable

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from session_core.stores.redis.url import Address, RedisTarget

__all__ = ("SentinelLocator",)


class SentinelLocator:
    """Finds the primary of one service. The Sentinel that answered last is asked first."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._sentinels = list(target.addresses)

    async def locate(self) -> AbstractConnection:
        """Return a connection to the primary, not yet connected. Raises `StoreUnavailableError` when no Sentinel knows it."""
        for sentinel in tuple(self._sentinels):
            primary = await self._ask(sentinel)
            if primary is not None:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return self._target.connection(primary)
        reason = "no Sentinel knows the primary"
        raise unavailable(reason)

    async def _ask(self, sentinel: Address) -> Address | None:
        connection = self._target.sentinel_connection(sentinel)
        try:
            # One that is frozen must leave time for the others, and for the primary.
            async with asyncio.timeout(self._target.timeout / (len(self._sentinels) + 1)):
                await connection.connect()  # type: ignore[no-untyped-call] # redis-py's own
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.service)
                reply: Any = await connection.read_response()
        except (RedisError, OSError, TimeoutError):
            return None
        finally:
            await connection.disconnect(nowait=True)
        return (reply[0].decode(), int(reply[1])) if reply else None
