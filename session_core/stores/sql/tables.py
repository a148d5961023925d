"""Creates the tables of the SQL store where they are missing, however many processes start at once, and checks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from session_core.errors import ConfigurationError
from session_core.stores.sql.errors import lacks_tables
from session_core.stores.sql.schema import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ("check_tables", "create_tables")

_LOCK: Final = 7_349_236_110_402
_MYSQL_COLUMN_EXISTS: Final = 1060
_MYSQL_INDEX_EXISTS: Final = 1061


async def create_tables(connection: AsyncConnection) -> None:
    """Create tables and indexes, and columns that a version before this one did not have (they are empty).

    What is there stays as it is: changing it is the work of migrations.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        # Two concurrent CREATE TABLE IF NOT EXISTS may both begin, and the later one fails.
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    present = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    for table in metadata.sorted_tables:
        if table.name not in present:
            await connection.execute(CreateTable(table, if_not_exists=True))
        for statement in await connection.run_sync(_missing_columns, table):
            await _run(connection, statement, unless=_MYSQL_COLUMN_EXISTS)
    for table in metadata.sorted_tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            # MySQL has no IF NOT EXISTS for indexes.
            statement = CreateIndex(index, if_not_exists=dialect not in {"mysql", "mariadb"})
            await _run(connection, statement, unless=_MYSQL_INDEX_EXISTS)


async def check_tables(connection: AsyncConnection) -> None:
    """Raise `ConfigurationError` when a table is missing, or a column that the store uses."""
    for table in metadata.sorted_tables:
        try:
            await connection.execute(select(*table.columns).limit(0))
        except DBAPIError as error:
            if not lacks_tables(error):
                raise
            msg = (
                f"the table {table.name} of the session store is missing or of another version; "
                "migrate the database (for example: alembic upgrade head), or let the store make it: create_tables=True"
            )
            raise ConfigurationError(msg) from error


def _missing_columns(connection: Connection, table: Table) -> list[Any]:
    present = {column["name"] for column in inspect(connection).get_columns(table.name)}
    preparer = connection.dialect.identifier_preparer
    begin = f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN"
    missing = [column for column in table.columns if column.name not in present and column.nullable]
    return [text(f"{begin} {CreateColumn(column).compile(dialect=connection.dialect)}") for column in missing]


async def _run(connection: AsyncConnection, statement: Any, *, unless: int) -> None:  # noqa: ANN401 - any kind of DDL
    """Run a statement that MySQL cannot make conditional; `unless` is its word for having nothing to do."""
    try:
        await connection.execute(statement)
    except DBAPIError as error:
        if error.orig is None or error.orig.args[:1] != (unless,):
            raise
