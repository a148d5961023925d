"""Creates the tables of the SQL store where they are missing, however many processes start at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from session_core.stores.sql_schema import metadata

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ("create_tables",)

_LOCK: Final = 7_349_236_110_402
_MYSQL_INDEX_EXISTS: Final = 1061


async def create_tables(connection: AsyncConnection) -> None:
    """Create tables and indexes. Existing ones stay as they are: changing them is the work of migrations."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        # Two concurrent CREATE TABLE IF NOT EXISTS may both begin, and the later one fails.
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    for table in metadata.sorted_tables:
        await connection.execute(CreateTable(table, if_not_exists=True))
    for table in metadata.sorted_tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if dialect in ("mysql", "mariadb"):
                await _create_mysql_index(connection, CreateIndex(index))
            else:
                await connection.execute(CreateIndex(index, if_not_exists=True))


async def _create_mysql_index(connection: AsyncConnection, statement: CreateIndex) -> None:
    """MySQL has no IF NOT EXISTS for indexes."""
    try:
        await connection.execute(statement)
    except DBAPIError as error:
        if error.orig is None or error.orig.args[0] != _MYSQL_INDEX_EXISTS:
            raise
