"""Sessions in a SQL database (SQLite, PostgreSQL, MySQL): the contract, made of statements and transactions."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from session_core.clock import Clock, SystemClock
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession
from session_core.stores.sql import statements, steps
from session_core.stores.sql.announcements import SqlFeed
from session_core.stores.sql.database import SqlDatabase
from session_core.stores.sql.expiry import removes_alone
from session_core.stores.sql.pace import Pace
from session_core.stores.sql.schema import claims, sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from session_core.stores.sql.database import Earlier

__all__ = ("SqlStore",)


class SqlStore(SqlFeed):
    """Sessions in the tables `sessions` and `session_claims` of the database that `url` names.

    `create_tables=False` leaves the tables to migrations (`session_core.stores.sql.schema.metadata`). `timeout` is in
    seconds, for connecting, for a free connection and for a lock; a whole call may take twice as long. `pool_size` bounds the
    connections of this process (SQLite: the readers; there is one writer. MySQL: half of them are for transactions).

    Raises `ConfigurationError` for a URL it cannot use and `ImportError` when the driver is not installed; `open` raises
    `ConfigurationError` when the tables are missing, or lack a column that this version needs.
    """

    capabilities = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=False)

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        create_tables: bool = True,
        pool_size: int = 10,
        timeout: float = 5.0,
    ) -> None:
        self._clock = clock or SystemClock()
        self._create_tables = create_tables
        self._pace = Pace()
        self._database = SqlDatabase(url, pool_size=pool_size, timeout=timeout)

    async def open(self) -> None:
        """See `SessionStore.open`."""
        await self._database.open(with_tables=self._create_tables)

    async def close(self) -> None:
        """See `SessionStore.close`. It may be opened again."""
        await self._database.close()

    async def ping(self) -> None:
        """See `SessionStore.ping`."""
        await self.load("")

        async def work(connection: AsyncConnection, earlier: Earlier[None]) -> None:
            del earlier
            await connection.execute(statements.TRY_WRITE)

        await self._database.write(work)

    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        rows = await self._database.read(statements.LOAD, {"at": key, "now": self._clock.now()})
        return steps.stored(rows[0]) if rows else None

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""

        async def work(connection: AsyncConnection, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            await steps.begin(connection, earlier, key, entry, self._clock.now())
            return ()

        async def work_within_limit(connection: AsyncConnection, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            now = self._clock.now()
            await statements.lock(connection, [entry.user], now)
            if not await steps.begin(connection, earlier, key, entry, now):
                return earlier.results[-1]
            return await steps.make_room(connection, key, entry.user, limit, now)

        if (limit <= 0 or entry.user is None) and statements.inserts_alone(self._database.dialect):
            return await self._database.write(work)
        return await self._database.transact(work_within_limit)

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""

        async def work(connection: AsyncConnection, earlier: Earlier[int]) -> int:
            return await steps.overwrite(connection, earlier, key, entry, version, self._clock.now())

        return await self._database.write(work)

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""

        async def work(connection: AsyncConnection, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            now = self._clock.now()
            # Both indexes: whoever ends the sessions of a user, or of the OP's session, must meet the new key or the old one.
            await statements.lock(connection, [entry.user, entry.op_session], now)
            moved = await steps.move(
                connection, earlier, old_key, new_key, entry, version=version, successor_until=successor_until, now=now
            )
            return await steps.make_room(connection, new_key, entry.user, limit, now) if moved else earlier.results[-1]

        return await self._database.transact(work)

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""

        async def work(connection: AsyncConnection, earlier: Earlier[bool]) -> bool:
            del earlier
            values = {"at": key, "now": self._clock.now(), "later": expires_at}
            return (await connection.execute(statements.TOUCH, values)).rowcount == 1

        return await self._database.write(work)

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""

        async def work(connection: AsyncConnection, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            return await steps.end(connection, earlier, key, self._clock.now())

        return await self._database.transact(work)

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        name, value = _named(index)
        rows = await self._database.read(statements.FIND[name], {name: value, "now": self._clock.now()})
        return [steps.stored(row) for row in rows]

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`."""
        name, value = _named(index)

        async def work(connection: AsyncConnection, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            return await steps.end_index(connection, earlier, name, value, keep=keep or "", now=self._clock.now())

        return await self._database.transact(work)

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`. Small steps with rests between them; may stop before `limit`, never at nothing."""
        began = self._pace.timer()
        removed = 0
        for table in (sessions, claims):
            rows = limit
            while rows and removed < limit and not (removed and self._pace.is_over(began)):
                rows, records = await self._remove_expired(table, min(limit - removed, self._pace.rows))
                removed += records
        return removed

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`. Reads page by page: no transaction stays open while the caller works."""
        after = ""
        while rows := await self._database.read(statements.PAGE, {"after": after, "now": self._clock.now()}):
            for row in rows:
                yield steps.stored(row)
            after = rows[-1].key

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        token = secrets.randbits(63)

        async def work(connection: AsyncConnection, earlier: Earlier[bool]) -> bool:
            return await steps.claim(connection, earlier, name, expires_at, token, self._clock.now())

        alone = statements.inserts_alone(self._database.dialect)
        return await (self._database.write(work) if alone else self._database.transact(work))

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        rows = await self._database.read(statements.CLAIMED_UNTIL, {"at": name, "now": self._clock.now()})
        return int(rows[0].expires_at) if rows else None

    async def _remove_expired(self, table: Table, limit: int) -> tuple[int, int]:
        began = 0.0

        async def work(connection: AsyncConnection, earlier: Earlier[tuple[int, int]]) -> tuple[int, int]:
            del earlier
            nonlocal began
            began = self._pace.timer()  # not before there was a connection: waiting for one is in nobody's way
            return await steps.remove_expired(connection, table, limit, self._clock.now())

        alone = removes_alone(self._database.dialect)
        rows, records = await (self._database.write(work) if alone else self._database.transact(work))
        if rows:
            await self._pace.rest(self._pace.timer() - began)
        return rows, records


def _named(index: SessionIndex) -> tuple[str, str]:
    return ("user", index.user) if index.user is not None else ("op_session", index.op_session or "")
