"""Connections to a database that stall at a chosen moment, and waiting until a server has processed its input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from session_core.stores.sql.store import SqlStore
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import PostgresServer

Server = PostgresServer | MariadbServer


@asynccontextmanager
async def frozen(server: Server) -> AsyncIterator[None]:
    """Stop a server by SIGSTOP: its sockets accept data, and nothing runs."""
    await asyncio.to_thread(server.freeze)
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def short_timeout(store: SqlStore, seconds: float = 1.0) -> Iterator[None]:
    """Give a store a short timeout for a block."""
    usual, store._database._timeout = store._database._timeout, seconds
    try:
        yield
    finally:
        store._database._timeout = usual


class HoldingProxy:
    """A proxy that can hold each connection at its n-th message, or silence it permanently."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self._hold_at: int | None = None
        self._counts: dict[int, int] = {}
        self._go_on = asyncio.Event()
        self._silent: set[int] = set()
        self._connections: set[int] = set()
        self.held = 0
        """Connections whose next message is held."""

    def hold_at(self, message: int) -> None:
        """Hold each connection at that message from now on, counted from 0."""
        self._hold_at, self.held = message, 0
        self._counts.clear()
        self._go_on.clear()

    def let_go(self) -> None:
        """Deliver held messages and hold no more."""
        self._hold_at = None
        self._go_on.set()

    def fall_silent(self) -> None:
        """Deliver nothing more on the open connections, without closing them."""
        self._silent |= self._connections

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HoldingProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", self._to)
        connection = id(reader)
        self._connections.add(connection)

        async def forward() -> None:
            while data := await reader.read(65536):
                await self._pass(connection)
                if connection not in self._silent:
                    there.write(data)
            there.close()

        async def answer() -> None:
            while data := await back.read(65536):
                if connection not in self._silent:
                    writer.write(data)
            writer.close()

        with suppress(ConnectionError, asyncio.CancelledError):  # cancelled when the test has ended meanwhile
            await asyncio.gather(forward(), answer())
        self._connections.discard(connection)
        there.transport.abort()
        writer.transport.abort()

    async def _pass(self, connection: int) -> None:
        if self._hold_at is None:
            return
        count = self._counts[connection] = self._counts.get(connection, -1) + 1
        if count == self._hold_at:
            self.held += 1
            await self._go_on.wait()


_OTHERS = {
    PostgresServer: "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    MariadbServer: "SELECT count(*) FROM information_schema.processlist WHERE id <> connection_id() AND user <> 'system user'",
}


async def until_alone(server: Server) -> None:
    """Return when the server has no other client, so it has read and processed all input."""
    engine = create_async_engine(server.url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection, asyncio.timeout(60):
        while (await connection.execute(text(_OTHERS[type(server)]))).scalar_one():  # noqa: ASYNC110 - waits for a server
            await asyncio.sleep(0.01)
    await engine.dispose()
