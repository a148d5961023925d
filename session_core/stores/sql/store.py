"""Sessions in a SQL database (PostgreSQL, MySQL, MariaDB): the contract, made of statements and transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from session_core.clock import Clock, SystemClock
from session_core.errors import ConfigurationError, StoreUnavailableError
from session_core.stores.announcements import Heard, Trace, announced_name
from session_core.stores.base import Entry, SessionIndex, StoreCapabilities, StoredSession
from session_core.stores.sql import statements, steps
from session_core.stores.sql.database import Earlier, SqlDatabase
from session_core.stores.sql.expiry import Pace, remove_expired
from session_core.stores.sql.request_path import Move, RequestPath

if TYPE_CHECKING:
    from session_core.stores.sql.link import Driver, Link
    from session_core.stores.sql.statements import Statement

__all__ = ("SqlStore",)

_AT_ONCE: Final = 500
"""Keys in one reading statement."""


class SqlStore:
    """Sessions in the tables `sessions` and `session_claims` of the database that `url` names.

    `create_tables=False` leaves the tables to migrations (`session_core.stores.sql.schema.metadata`). `timeout` is in seconds,
    for a call without a deadline (`session_core.stores.deadlines`). `pool_size` bounds the connections of this
    process; the URL may say another number.

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
        driver = _driver_of(url)
        self._database = SqlDatabase(driver, pool_size=driver.pool_size or pool_size, timeout=timeout)
        self._requests = RequestPath(self._database, self._clock)
        self._is_postgresql = driver.dialect == "postgresql"
        """On PostgreSQL an insertion is one statement, and a long result is read in pieces."""

    async def open(self) -> None:
        """See `SessionStore.open`."""
        await self._database.open(with_tables=self._create_tables)

    async def close(self) -> None:
        """See `SessionStore.close`. It may be opened again."""
        await self._database.close()

    async def ping(self) -> None:
        """See `SessionStore.ping`."""

        async def work(link: Link, earlier: Earlier[None]) -> None:
            del earlier
            await link.rows(statements.LOAD, {"keys": [""], "now": self._clock.now()})
            await link.count(statements.TRY_WRITE, {})

        await self._database.write(work)

    async def load(self, key: str) -> StoredSession | None:
        """See `SessionStore.load`."""
        return await self._requests.load(key)

    async def create(self, key: str, entry: Entry, *, limit: int = 0) -> tuple[str, ...]:
        """See `SessionStore.create`."""

        async def work(link: Link, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            await steps.begin(link, earlier, key, entry, self._clock.now())
            return ()

        async def work_within_limit(link: Link, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            now = self._clock.now()
            await steps.lock(link, [entry.user], now)
            if not await steps.begin(link, earlier, key, entry, now):
                return earlier.results[-1]
            return await steps.make_room(link, key, entry.user, limit, now)

        if (limit <= 0 or entry.user is None) and self._is_postgresql:
            return await self._database.write(work)
        return await self._with_room(key, entry.user, limit, partial(self._database.transact, work_within_limit))

    async def replace(self, key: str, entry: Entry, *, version: int) -> int:
        """See `SessionStore.replace`."""
        return await self._requests.replace(key, entry, version)

    async def rotate(
        self, old_key: str, new_key: str, entry: Entry, *, version: int, successor_until: int, limit: int = 0
    ) -> tuple[str, ...]:
        """See `SessionStore.rotate`."""
        limit = max(limit, 0) if entry.user is not None else 0
        move = Move(old_key, new_key, entry, version, successor_until, limit)
        return await self._with_room(old_key, entry.user, limit, partial(self._requests.rotate, move))

    async def touch(self, key: str, expires_at: int) -> bool:
        """See `SessionStore.touch`."""
        return await self._requests.touch(key, expires_at)

    async def delete(self, key: str) -> tuple[str, ...]:
        """See `SessionStore.delete`."""

        async def work(link: Link, earlier: Earlier[tuple[str, ...]]) -> tuple[str, ...]:
            return await steps.end(link, earlier, key, self._clock.now())

        return await self._database.transact(work)

    async def find(self, index: SessionIndex) -> Sequence[StoredSession]:
        """See `SessionStore.find`."""
        name, value = index.column
        now = self._clock.now()
        if not self._is_postgresql:
            return [stored async for stored in self._read_pages(statements.FIND[name], {"value": value})]
        rows = await self._database.read(statements.FIND[name], {"value": value, "now": now})
        found: list[StoredSession] = []
        for start in range(0, len(rows), _AT_ONCE):
            found += map(steps.stored, rows[start : start + _AT_ONCE])
            await asyncio.sleep(0)  # other requests are served between
        return found

    async def delete_by(self, index: SessionIndex, *, keep: str | None = None) -> tuple[str, ...]:
        """See `SessionStore.delete_by`. Very many sessions end in several transactions; what is rotated between them is found."""
        name, value = index.column
        return await self._end_in_steps(steps.end_some, name, value, keep=keep or "")

    async def delete_expired(self, limit: int = 1000) -> int:
        """See `SessionStore.delete_expired`. Small steps with rests between them; may stop before `limit`, never at nothing."""
        return await remove_expired(self._database, self._pace, limit, self._clock.now)

    async def scan(self) -> AsyncIterator[StoredSession]:
        """See `SessionStore.scan`. Reads page by page: no transaction stays open while the caller works."""
        async for stored in self._read_pages(statements.PAGE, {}):
            yield stored

    async def claim(self, name: str, expires_at: int) -> bool:
        """See `SessionStore.claim`."""
        return await self._requests.claim(name, expires_at)

    async def claimed_until(self, name: str) -> int | None:
        """See `SessionStore.claimed_until`."""
        rows = await self._database.read(statements.CLAIMED_UNTIL, {"name": name, "now": self._clock.now()})
        return int(rows[0][0]) if rows else None

    async def trace(self, keys: Sequence[str]) -> Mapping[str, Trace]:
        """See `SessionTracing.trace`."""
        traces: dict[str, Trace] = {}
        for start in range(0, len(keys), _AT_ONCE):
            values = {"keys": list(keys[start : start + _AT_ONCE]), "now": self._clock.now()}
            rows = await self._database.read(statements.TRACE, values)
            traces |= {key: Trace(expires_at, successor) for key, expires_at, successor in rows}
        return traces

    @property
    def pushes(self) -> bool:
        """See `RevocationFeed.pushes`. PostgreSQL does, where no pooler is between; MySQL has no such channel."""
        return self._database.driver.pushes

    def announced_name(self, key: str) -> str:
        """See `RevocationFeed.announced_name`."""
        return announced_name(key.encode())

    async def listen(self, heard: Heard, *, patience: float) -> None:
        """See `RevocationFeed.listen`. Takes a separate connection, beside the pool's."""
        try:
            await self._database.driver.listen(heard, patience)
        except self._database.driver.failures as error:
            raise self._database.unavailable(error, not_applied=True) from error

    async def _with_room(
        self, key: str, user: str | None, limit: int, login: Callable[[], Awaitable[tuple[str, ...]]]
    ) -> tuple[str, ...]:
        """Run a login; after the limit was lowered, end very many sessions above it first."""
        ended: tuple[str, ...] = ()
        while True:
            try:
                return ended + await login()
            except steps.SurplusError:
                ended += await self._end_in_steps(steps.end_surplus, user, keep=key, limit=limit)

    async def _end_in_steps(
        self, step: Callable[..., Awaitable[tuple[tuple[str, ...], bool]]], *arguments: object, **options: object
    ) -> tuple[str, ...]:
        """Repeat a step, each time in a transaction, until it ends no more sessions; all have one deadline."""
        deadline = self._database.deadline()
        ended: tuple[str, ...] = ()
        more = True

        async def work(link: Link, earlier: Earlier[tuple[tuple[str, ...], bool]]) -> tuple[tuple[str, ...], bool]:
            return await step(link, earlier, *arguments, **options, now=self._clock.now())

        try:
            while more:
                keys, more = await self._database.transact(work, deadline=deadline)
                ended += keys
        except StoreUnavailableError as error:
            error.not_applied = error.not_applied and not ended
            raise
        return ended

    async def _read_pages(self, statement: Statement, values: Mapping[str, object]) -> AsyncIterator[StoredSession]:
        """Iterate over the rows of a statement after one key, page by page."""
        after = ""
        while rows := await self._database.read(statement, {**values, "after": after, "now": self._clock.now()}):
            for row in rows:
                yield steps.stored(row)
            after = rows[-1][0]
            await asyncio.sleep(0)  # other requests are served between


def _driver_of(url: str) -> Driver:
    """Return the driver of a URL. Raises `ConfigurationError`, and `ImportError` when it is not installed."""
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme in {"postgresql", "postgres"}:
        from session_core.stores.sql.postgresql import PostgresqlDriver  # noqa: PLC0415 - a driver is imported only when asked for

        return PostgresqlDriver(url)
    if scheme in {"mysql", "mariadb"}:
        from session_core.stores.sql.mysql import MysqlDriver  # noqa: PLC0415 - likewise

        return MysqlDriver(url)
    msg = "the SQL session store takes postgresql:// and mysql:// URLs; a good example: postgresql://user:password@host/database"
    raise ConfigurationError(msg)
