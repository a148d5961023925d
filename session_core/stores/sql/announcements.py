"""Tells many sessions' fate in one SELECT, and announces their end over PostgreSQL's LISTEN and NOTIFY.

A notification is part of the transaction that deletes: it goes out when that commits, or not at all. It needs no rights, and
every role of the database may listen: hence digests, which open nothing. A pooler between (PgBouncer by transaction) takes LISTEN
and forgets it; sessions are then looked at by polling (`close_connections="poll"`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, select

from session_core.errors import StoreUnavailableError
from session_core.stores.announcements import NAME_CHARS, Heard, Trace, announced_name
from session_core.stores.sql.errors import failures_of, kind_of
from session_core.stores.sql.schema import sessions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from session_core.clock import Clock
    from session_core.stores.sql.database import SqlDatabase

__all__ = ("SqlFeed", "announce")

_BATCH: Final = 500
_CHANNEL: Final = "session_core_ended"
_NAMES_AT_ONCE: Final = 7900 // (NAME_CHARS + 1)
"""A payload is shorter than 8000 bytes."""
_NOTIFY: Final = select(func.pg_notify(_CHANNEL, bindparam("names")))
_TRACE: Final = select(sessions.c.key, sessions.c.expires_at, sessions.c.successor).where(
    sessions.c.key.in_(bindparam("keys", expanding=True)), sessions.c.expires_at > bindparam("now")
)


async def announce(connection: AsyncConnection, keys: Sequence[str]) -> None:
    """Announce with the transaction under way that these sessions have ended or were rotated; nothing where nobody can listen."""
    if connection.dialect.name != "postgresql":
        return
    names = [announced_name(key.encode()) for key in keys]
    for start in range(0, len(names), _NAMES_AT_ONCE):
        await connection.execute(_NOTIFY, {"names": " ".join(names[start : start + _NAMES_AT_ONCE])})


class SqlFeed:
    """See `SessionTracing` and `RevocationFeed`."""

    _clock: Clock
    _database: SqlDatabase

    @property
    def pushes(self) -> bool:
        """See `RevocationFeed.pushes`. Other databases have no such channel, nor have other drivers the same way to it."""
        return self._database.url.drivername == "postgresql+asyncpg"

    def announced_name(self, key: str) -> str:
        """See `RevocationFeed.announced_name`."""
        return announced_name(key.encode())

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`."""
        traces: dict[str, Trace] = {}
        for start in range(0, len(keys), _BATCH):
            values = {"keys": list(keys[start : start + _BATCH]), "now": self._clock.now()}
            rows = await self._database.read(_TRACE, values)
            traces |= {row.key: Trace(row.expires_at, row.successor) for row in rows}
        return traces

    async def listen(self, heard: Heard, *, patience: float) -> None:
        """See `RevocationFeed.listen`. Takes a connection of its own, beside the pool's."""
        try:
            async with self._database.apart() as connection:
                await _listen(connection, heard, patience)
        except failures_of(_driver(self._database)) as error:
            msg = f"the {self._database.dialect} session store announces nothing ({kind_of(error)})"
            raise StoreUnavailableError(msg) from error


async def _listen(connection: AsyncConnection, heard: Heard, patience: float) -> None:
    adapted: Any = (await connection.get_raw_connection()).dbapi_connection
    raw: Any = adapted.driver_connection
    lost = asyncio.Event()

    def notified(connection: object, process: int, channel: str, names: str) -> None:
        del connection, process, channel
        heard(names.split())

    def terminated(connection: object) -> None:
        del connection
        lost.set()

    try:
        async with asyncio.timeout(patience + patience):
            raw.add_termination_listener(terminated)
            await raw.add_listener(_CHANNEL, notified)
        heard(None)
        while not lost.is_set():
            try:
                async with asyncio.timeout(patience):
                    await lost.wait()
            except TimeoutError:
                async with asyncio.timeout(patience):
                    await raw.execute("SELECT 1")
    finally:
        raw.terminate()  # at once: a server that hangs does not answer a farewell


def _driver(database: SqlDatabase) -> Any:  # noqa: ANN401 - a module
    """The driver's module, for its errors."""
    return database.url.get_dialect().import_dbapi()
