"""Tells many sessions' fate in one round trip, and hears what the scripts of the store publish; knows no transport.

Scripts publish in the step that deletes or moves, on the channel `{prefix}ended`; a cluster passes it on to every node. The user
of the URL needs the right to that channel (`&sc:*` for the usual prefix). Without it the steps are made all the same, unheard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from session_core.stores.announcements import Heard, Trace, announced_name
from session_core.stores.redis.connection import report_outage
from session_core.stores.redis.layout import TRACE_BYTES, decode_trace, member_of
from session_core.stores.redis.link import gather

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from session_core.clock import Clock
    from session_core.stores.redis.layout import Layout
    from session_core.stores.redis.link import RedisLink

__all__ = ("RedisFeed",)

_MESSAGE: Final = b"message"


class RedisFeed:
    """See `SessionTracing` and `RevocationFeed`. `timeout` is in seconds, for connecting."""

    pushes = True

    def __init__(self, link: RedisLink, layout: Layout, clock: Clock, timeout: float) -> None:
        self._link = link
        self._layout = layout
        self._clock = clock
        self._timeout = timeout

    def announced_name(self, key: str) -> str:
        """See `RevocationFeed.announced_name`."""
        return announced_name(member_of(key))

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`."""
        values: list[bytes] = await gather(
            [self._link.call(b"GETRANGE", self._layout.record(key), 0, TRACE_BYTES - 1) for key in keys]
        )
        now = self._clock.now()
        traces = ((key, decode_trace(value, now)) for key, value in zip(keys, values, strict=True))
        return {key: trace for key, trace in traces if trace is not None}

    async def listen(self, heard: Heard, *, patience: float) -> None:
        """See `RevocationFeed.listen`. Takes a connection of its own."""
        connection: AbstractConnection | None = None
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._link.apart()
                await connection.connect()  # type: ignore[no-untyped-call] # redis-py's own
                await connection.send_command("SUBSCRIBE", self._layout.channel())
                await connection.read_response()
            heard(None)
            while True:
                heard(await _next(connection, patience))
        except (RedisError, OSError, TimeoutError) as error:
            report_outage(type(error).__name__)
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)


async def _next(connection: AbstractConnection, patience: float) -> list[str]:
    """Return the names of the next message; none when the server was silent and has said that it is there."""
    # None is what redis-py answers to a read that took too long; the rest of a message that came in pieces is read the next time.
    reply: Any = await connection.read_response(timeout=patience)
    if reply is None:
        await connection.send_command("PING")
        async with asyncio.timeout(patience):
            reply = await connection.read_response()
    kind, _, *payload = reply
    return payload[0].decode("ascii", "replace").split() if kind == _MESSAGE else []
