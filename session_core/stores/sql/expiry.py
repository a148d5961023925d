"""The statements that remove what has expired, and meet nobody on their way; they know no transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, func, literal_column, select, text, true
from sqlalchemy.dialects import mysql

from session_core.stores.sql.schema import claims, sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import BindParameter, ColumnElement, Executable, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ("remove", "remove_alone", "removes_alone", "take_expired")

_DIALECTS: Final = ("sqlite", "postgresql", "mysql")
_OTHERS: Final = 100
"""Rows that another sweeper may be at, and that are looked past."""
_now: Final[BindParameter[int]] = bindparam("now")
# In the order of the index. Without it PostgreSQL reads the table from its beginning: with each step of a sweep more pages that
# earlier steps have emptied.
_expired: Final = {
    table: select(table.primary_key.columns[0])
    .where(table.c.expires_at <= _now)
    .order_by(table.c.expires_at)
    .limit(bindparam("limit"))
    for table in (sessions, claims)
}
_expired_of_names: Final = {
    table: select(name)
    .with_hint(table, "FORCE INDEX (PRIMARY)", "mysql")
    .where(name.in_(bindparam("names", expanding=True)), table.c.expires_at <= _now)
    .limit(bindparam("limit"))
    for table, name in ((sessions, sessions.c.key), (claims, claims.c.name))
}


# The commit of a sweep waits for no disk, and makes nobody's commit wait behind it: what a crash brings back has expired, and is
# swept again. For this statement's own transaction alone (`is_local`).
_UNHURRIED: Final = select(func.set_config("synchronous_commit", "off", true())).scalar_subquery().is_not(None)


def _removal(table: Table, dialect: str) -> Executable:
    name = table.primary_key.columns[0]
    if dialect != "mysql":
        return delete(table).where(name.in_(bindparam("names", expanding=True)), table.c.expires_at <= _now)
    # MySQL locks each row that it passes on its way: it must take the way of the names, and meet nobody else.
    quoted = mysql.dialect().identifier_preparer.quote(name.name)
    return text(
        f"DELETE {table.name} FROM {table.name} FORCE INDEX (PRIMARY) WHERE {quoted} IN :names AND expires_at <= :now"
    ).bindparams(bindparam("names", expanding=True), _now)


def _removal_alone(table: Table, dialect: str) -> Executable:
    """DELETE that finds its rows by itself."""
    name = table.primary_key.columns[0]
    if dialect == "sqlite":
        return delete(table).where(name.in_(_expired[table].scalar_subquery()))
    # By the places of the rows: whatever PostgreSQL knows of the table, it need not plan how to find them. By their names it may
    # read the whole table, and compare each row with all of them, until it has statistics.
    place: ColumnElement[object] = literal_column(f"{table.name}.ctid")
    rows = _expired[table].with_only_columns(place).with_for_update(skip_locked=True).correlate(None)
    # Asked again: the row may have been replaced by a new session of that name after the statement began.
    return delete(table).where(place == func.any(func.array(rows.scalar_subquery())), table.c.expires_at <= _now, _UNHURRIED)


_REMOVE_ALONE: Final = {
    (table, dialect): _removal_alone(table, dialect) for table in (sessions, claims) for dialect in ("sqlite", "postgresql")
}
_REMOVE: Final = {(table, dialect): _removal(table, dialect) for table in (sessions, claims) for dialect in _DIALECTS}


def removes_alone(dialect: str) -> bool:
    """Whether `remove_alone` gives a statement, hence no transaction is needed around it."""
    return (sessions, dialect) in _REMOVE_ALONE


def remove_alone(dialect: str, table: Table) -> Executable | None:
    """The single DELETE of up to `limit` expired rows that nobody else is at. None on MySQL, where a DELETE waits for others."""
    return _REMOVE_ALONE.get((table, dialect))


async def remove(connection: AsyncConnection, table: Table, names: Sequence[str], now: int) -> None:
    """Delete those of the rows that have expired."""
    await connection.execute(_REMOVE[table, connection.dialect.name], {"names": list(names), "now": now})


async def take_expired(connection: AsyncConnection, table: Table, limit: int, now: int) -> Sequence[str]:
    """Lock up to `limit` expired rows of MySQL, and return their names.

    SKIP LOCKED: several sweepers share the work, and none waits for a session that is being used.
    """
    # Looking for what has expired, MySQL would lock what has not: the first row behind it, or any in a small table.
    values = {"now": now, "limit": limit + _OTHERS}
    names = (await connection.execute(_expired[table], values)).scalars().all()
    if not names:
        return names
    taken = _expired_of_names[table].with_for_update(skip_locked=True)
    return (await connection.execute(taken, {"names": names, "now": now, "limit": limit})).scalars().all()
