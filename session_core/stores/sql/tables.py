"""Checks the tables of the SQL store, and creates missing ones, also with concurrent processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from session_core.errors import ConfigurationError
from session_core.stores.sql.schema import metadata
from session_core.stores.sql.statements import Statement

if TYPE_CHECKING:
    from sqlalchemy import Table

    from session_core.stores.sql.link import Link

__all__ = ("prepare_tables",)

_LOCK: Final = 7_349_236_110_402
_IS_THERE_ALREADY: Final = frozenset({1050, 1060, 1061})
"""MySQL's words for a table, a column or an index that another process has created meanwhile."""
_HERE: Final = "table_schema = ANY (current_schemas(false))"
_COLUMNS: Final = Statement(
    f"SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_name IN :tables AND {_HERE}",
    mysql="SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_name IN :tables AND table_schema = database()",
)
_INDEXES: Final = Statement(
    "SELECT indexname::text FROM pg_indexes WHERE tablename IN :tables AND schemaname = ANY (current_schemas(false))",
    mysql="SELECT DISTINCT index_name FROM information_schema.statistics"
    " WHERE table_name IN :tables AND table_schema = database()",
)


async def prepare_tables(link: Link, *, create: bool) -> None:
    """Create tables, indexes, and columns that a version before this one did not have (they are empty).

    Existing tables are not changed: that is for migrations. Raises `ConfigurationError` when a table or a column is
    missing afterwards.
    """
    missing = await _missing(link) if create else ()
    if missing and link.dialect == "postgresql":
        # Of several processes one creates them, and the others find them complete.
        await link.script(f"SELECT pg_advisory_xact_lock({_LOCK})")
        missing = await _missing(link)
    for statement in missing:
        await _create(link, statement)
    present = await _columns(link)
    for table in metadata.sorted_tables:
        if not {column.name for column in table.columns} <= present.get(table.name, set()):
            msg = (
                f"the table {table.name} of the session store is missing or of another version; "
                "migrate the database (for example: alembic upgrade head), or let the store make it: create_tables=True"
            )
            raise ConfigurationError(msg)


async def _missing(link: Link) -> Sequence[str]:
    """Return the statements that create what is missing."""
    dialect: Any = {"postgresql": postgresql, "mysql": mysql}[link.dialect].dialect()
    present = await _columns(link)
    indexes = {name for (name,) in await link.rows(_INDEXES, _tables())}
    found: list[Any] = []
    for table in metadata.sorted_tables:
        if table.name not in present:
            found.append(CreateTable(table).compile(dialect=dialect))
        else:
            found += _columns_to_add(table, present[table.name], dialect)
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in indexes:
                found.append(CreateIndex(index).compile(dialect=dialect))
    return [str(statement) for statement in found]


def _columns_to_add(table: Table, present: set[str], dialect: Any) -> list[str]:  # noqa: ANN401 - one of SQLAlchemy's
    begin = f"ALTER TABLE {dialect.identifier_preparer.format_table(table)} ADD COLUMN"
    missing = [column for column in table.columns if column.name not in present and column.nullable]
    return [f"{begin} {CreateColumn(column).compile(dialect=dialect)}" for column in missing]


async def _columns(link: Link) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for table, column in await link.rows(_COLUMNS, _tables()):
        found.setdefault(table, set()).add(column)
    return found


def _tables() -> dict[str, list[str]]:
    return {"tables": sorted(metadata.tables)}


async def _create(link: Link, statement: str) -> None:
    try:
        await link.script(statement)
    except Exception as error:
        if link.dialect == "postgresql" or error.args[:1] not in {(number,) for number in _IS_THERE_ALREADY}:
            raise
