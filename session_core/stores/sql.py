"""Sessions in a SQL database (SQLite, PostgreSQL, MySQL): the contract, made of statements and transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from session_core.clock import Clock, SystemClock
from session_core.errors import SessionConflictError, SessionGoneError
from session_core.stores import sql_statements as statements
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession
from session_core.stores.sql_database import SqlDatabase
from session_core.stores.sql_schema import claims, sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import Table
    from sqlalchemy.engine import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ("SqlStore",)

_BATCH: Final = 500
"""Keys per statement: databases bound the number of parameters."""


class SqlStore:
    """Sessions in the tables `sessions` and `session_claims` of the database that `url` names.

    `create_tables=False` leaves the tables to migrations (`session_core.stores.sql_schema.metadata`). `timeout` is in
    seconds, for a free connection and for SQLite's write lock; a whole call may take twice as long. `pool_size` bounds the
    connections of this process (SQLite: the readers; there is one writer).

    Raises `ConfigurationError` for a URL it cannot use and `ImportError` when the driver is not installed.
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
        await self._database.write(statements.TRY_WRITE, {})

    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        rows = await self._database.read(statements.LOAD, {"at": key, "now": self._clock.now()})
        return _stored(rows[0]) if rows else None

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""
        values = {"key": key, "version": 1, "successor": None, **_columns(entry), "now": self._clock.now()}
        alone = statements.insert_alone(self._database.dialect, sessions)
        if alone is not None and (limit <= 0 or entry.user is None):
            if await self._database.write(alone, values) != 1:
                raise SessionConflictError(_TAKEN)
            return ()

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            await statements.lock(connection, [entry.user], self._clock.now())
            await _insert(connection, values)
            return await self._evict(connection, key, entry, limit)

        return await self._database.transact(work)

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""
        at = {"at": key, "now": self._clock.now()}
        values = {**at, "expected": version, "version": version + 1, **_columns(entry)}
        if await self._database.write(statements.UPDATE_VERSION, values) != 1:
            raise _refusal(await self._database.read(statements.VERSION, at))
        return version + 1

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            # Both indexes: whoever ends the sessions of a user, or of the OP's session, must meet the new key or the old one.
            await statements.lock(connection, [entry.user, entry.op_session], self._clock.now())
            at = {"at": old_key, "now": self._clock.now()}
            retired = {"data": b"", "expires_at": successor_until, "user_key": None, "op_session_key": None}
            values = {**at, "expected": version, "successor": new_key, **retired}
            if (await connection.execute(statements.UPDATE_VERSION, values)).rowcount != 1:
                raise _refusal((await connection.execute(statements.VERSION, at)).all())
            if old_key == new_key:
                raise SessionConflictError(_TAKEN)
            values = {"key": new_key, "version": 1, "successor": None, **_columns(entry), "now": at["now"]}
            await _insert(connection, values)
            return await self._evict(connection, new_key, entry, limit)

        return await self._database.transact(work)

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        values = {"at": key, "now": self._clock.now(), "later": expires_at}
        return await self._database.write(statements.TOUCH, values) == 1

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            now = self._clock.now()
            seen: list[str] = []
            deleted: list[str] = []
            following: str | None = key
            while following is not None and following not in seen:
                # One after another: each look waits for a rotation of that very key in flight, then sees what it became.
                row = (await connection.execute(statements.HOLD, {"at": following})).one_or_none()
                if row is None:
                    break
                seen.append(following)
                if row.successor is None and row.expires_at > now:
                    deleted.append(following)
                following = row.successor if row.expires_at > now else None
            await _delete(connection, seen)
            return tuple(deleted)

        return await self._database.transact(work)

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        name, value = _named(index)
        rows = await self._database.read(statements.FIND[name], {name: value, "now": self._clock.now()})
        return [_stored(row) for row in rows]

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`."""
        name, value = _named(index)

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            now = self._clock.now()
            await statements.lock(connection, [value], now)
            found = await connection.execute(statements.HOLD_INDEX[name], {name: value, "now": now, "keep": keep or ""})
            keys = tuple(found.scalars())
            await _delete(connection, keys)
            return keys

        return await self._database.transact(work)

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`."""
        removed = 0
        for table in (sessions, claims):
            names = [""]
            while names and removed < limit:
                names = await self._remove_expired(table, min(limit - removed, _BATCH))
                removed += sum(not statements.is_lock(name) for name in names)
        return removed

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`. Reads page by page: no transaction stays open while the caller works."""
        after = ""
        while rows := await self._database.read(statements.PAGE, {"after": after, "now": self._clock.now()}):
            for row in rows:
                yield _stored(row)
            after = rows[-1].key

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        values = {"name": name, "expires_at": expires_at, "now": self._clock.now()}
        alone = statements.insert_alone(self._database.dialect, claims)
        if alone is not None:
            return await self._database.write(alone, values) == 1
        return await self._database.transact(lambda connection: statements.insert(connection, claims, values))

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        rows = await self._database.read(statements.CLAIMED_UNTIL, {"at": name, "now": self._clock.now()})
        return int(rows[0].expires_at) if rows else None

    async def _remove_expired(self, table: Table, limit: int) -> list[str]:
        async def work(connection: AsyncConnection) -> list[str]:
            now = self._clock.now()
            names = list((await connection.execute(statements.EXPIRED[table], {"now": now, "limit": limit})).scalars())
            if names:
                await connection.execute(statements.REMOVE[table], {"names": names, "now": now})
            return names

        return await self._database.transact(work)

    async def _evict(self, connection: AsyncConnection, key: str, entry: Entry, limit: int) -> tuple[str, ...]:
        """Delete what is above the limit beside `key`. The lock on the user is held."""
        if limit <= 0 or entry.user is None:
            return ()
        values = {"user": entry.user, "now": self._clock.now(), "keep": key}
        others = (await connection.execute(statements.HOLD_INDEX["user"], values)).scalars().all()
        evicted = tuple(others[: max(len(others) - limit + 1, 0)])
        await _delete(connection, evicted)
        return evicted


_TAKEN: Final = "the session key is taken"


def _stored(row: Row[Any]) -> StoredSession:
    key, version, data, expires_at, user, op_session, rank = tuple(row)
    return StoredSession(key, version, Entry(bytes(data), expires_at, user, op_session, rank))


def _columns(entry: Entry) -> dict[str, object]:
    return {
        "data": entry.data,
        "expires_at": entry.expires_at,
        "user_key": entry.user,
        "op_session_key": entry.op_session,
        "rank": entry.rank,
    }


def _named(index: SessionIndex) -> tuple[str, str]:
    return ("user", index.user) if index.user is not None else ("op_session", index.op_session or "")


def _refusal(live: Sequence[Row[Any]]) -> SessionConflictError | SessionGoneError:
    return SessionConflictError() if live else SessionGoneError()


async def _insert(connection: AsyncConnection, values: dict[str, object]) -> None:
    if not await statements.insert(connection, sessions, values):
        raise SessionConflictError(_TAKEN)


async def _delete(connection: AsyncConnection, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), _BATCH):
        await connection.execute(statements.DELETE_KEYS, {"keys": list(keys[start : start + _BATCH])})
