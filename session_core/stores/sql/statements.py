"""The statements of the SQL store, built once; each keeps the contract's conditions inside the statement itself."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, and_, bindparam, case, delete, func, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from session_core.stores.sql.expiry import remove
from session_core.stores.sql.schema import claims, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import BindParameter, Executable, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = (
    "CLAIMED_BY",
    "CLAIMED_UNTIL",
    "DELETE_KEYS",
    "FIND",
    "HOLD",
    "LOAD",
    "PAGE",
    "TOUCH",
    "TRY_WRITE",
    "UPDATE_VERSION",
    "VERSION",
    "hold_index",
    "insert",
    "insert_alone",
    "inserts_alone",
    "is_lock",
    "lock",
)

_now: Final[BindParameter[int]] = bindparam("now")
_key: Final[BindParameter[str]] = bindparam("at")
_of_user: Final = sessions.c.user_key == bindparam("user")
_of_op_session: Final = sessions.c.op_session_key == bindparam("op_session")
_live: Final = and_(sessions.c.successor.is_(None), sessions.c.expires_at > _now)
_this: Final = and_(sessions.c.key == _key, _live)
_this_version: Final = and_(_this, sessions.c.version == bindparam("expected"))
_record: Final = (
    sessions.c.key,
    sessions.c.version,
    sessions.c.data,
    sessions.c.expires_at,
    sessions.c.user_key,
    sessions.c.op_session_key,
    sessions.c.rank,
)

LOAD: Final = select(*_record).where(_this)
VERSION: Final = select(sessions.c.version).where(_this)
FIND: Final = {
    "user": select(*_record).where(_of_user, _live),
    "op_session": select(*_record).where(_of_op_session, _live),
}
PAGE: Final = select(*_record).where(sessions.c.key > bindparam("after"), _live).order_by(sessions.c.key).limit(200)
CLAIMED_BY: Final = select(claims.c.token).where(claims.c.name == _key, claims.c.expires_at > _now)
CLAIMED_UNTIL: Final = select(claims.c.expires_at).where(claims.c.name == _key, claims.c.expires_at > _now)

TRY_WRITE: Final = update(claims).where(claims.c.name == "").values(expires_at=0)
"""Meets no row, and still fails where nothing can be written: a read-only replica, disk or file."""

# What is set are those parameters of the execution that are named as columns.
UPDATE_VERSION: Final = update(sessions).where(_this_version)
_later: Final = bindparam("later", type_=BigInteger)
TOUCH: Final = (
    update(sessions).where(_this).values(expires_at=case((sessions.c.expires_at < _later, _later), else_=sessions.c.expires_at))
)

# FOR UPDATE (which SQLite neither knows nor needs) waits for a rotation in flight and then looks at the row again.
HOLD: Final = select(sessions.c.successor, sessions.c.expires_at).where(sessions.c.key == _key).with_for_update()
_of_index: Final = {
    name: select(sessions.c.key)
    .where(of_it, _live, sessions.c.key != bindparam("keep"))
    .order_by(sessions.c.rank, sessions.c.key)
    for name, of_it in (("user", _of_user), ("op_session", _of_op_session))
}
_of_keys: Final = (
    select(sessions.c.key)
    .with_hint(sessions, "FORCE INDEX (PRIMARY)", "mysql")
    .where(sessions.c.key.in_(bindparam("keys", expanding=True)), _live)
    .order_by(sessions.c.rank, sessions.c.key)
)
DELETE_KEYS: Final = delete(sessions).where(sessions.c.key.in_(bindparam("keys", expanding=True)))

_BATCH: Final = 500
"""Keys per statement: databases bound the number of parameters."""


def _on_conflict(table: Table, dialect: Any) -> Executable:  # noqa: ANN401 - a module
    """INSERT that takes the place of an expired row, in one statement."""
    insert = dialect.insert(table)
    name = table.primary_key.columns[0]
    rest = {column.name: insert.excluded[column.name] for column in table.columns if column is not name}
    return insert.on_conflict_do_update(index_elements=[name], set_=rest, where=table.c.expires_at <= _now)  # type: ignore[no-any-return]


_ADVISORY: Final = select(func.pg_advisory_xact_lock(bindparam("number", type_=BigInteger)))
_LOCK_PREFIX: Final = "lock:"
_LOCK_ROW_MS: Final = 3_600_000
_new_lock: Final = mysql.insert(claims)
_LOCK_ROW: Final = _new_lock.on_duplicate_key_update(expires_at=_new_lock.inserted.expires_at)

_UPSERTS: Final[dict[tuple[str, Table], Executable]] = {
    (name, table): _on_conflict(table, dialect)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
    for table in (sessions, claims)
}


def inserts_alone(dialect: str) -> bool:
    """Whether `insert` is one statement, hence needs no transaction around it."""
    return (dialect, sessions) in _UPSERTS


def insert_alone(dialect: str, table: Table) -> Executable | None:
    """The single INSERT that meets one row, or none when a row that has not expired is in its place. None on MySQL."""
    return _UPSERTS.get((dialect, table))


async def hold_index(connection: AsyncConnection, index: str, value: str, *, keep: str, now: int) -> Sequence[str]:
    """Lock the live sessions of an index except `keep`; return their keys, those of the lowest rank first.

    The lock on the index is held, so none is added meanwhile.
    """
    values = {index: value, "now": now, "keep": keep}
    if connection.dialect.name != "mysql":
        return (await connection.execute(_of_index[index].with_for_update(), values)).scalars().all()
    # MySQL would also lock, and wait for, the user's expired sessions that a sweeper is at.
    found = (await connection.execute(_of_index[index], values)).scalars().all()
    held: list[str] = []
    for start in range(0, len(found), _BATCH):
        some = {"keys": found[start : start + _BATCH], "now": now}
        held += (await connection.execute(_of_keys.with_for_update(), some)).scalars().all()
    return held


async def insert(connection: AsyncConnection, table: Table, values: Mapping[str, object]) -> bool:
    """Insert a row within a transaction, over an expired one; return whether there was room for it.

    `values` are the columns, and `now`.
    """
    alone = insert_alone(connection.dialect.name, table)
    if alone is not None:
        return (await connection.execute(alone, values)).rowcount == 1
    name = table.primary_key.columns[0].name
    await remove(connection, table, [str(values[name])], int(str(values["now"])))
    try:
        await connection.execute(table.insert(), {key: value for key, value in values.items() if key != "now"})
    except IntegrityError:
        return False
    return True


async def lock(connection: AsyncConnection, names: Iterable[str | None], now: int) -> None:
    """Hold locks on these names until the transaction ends, in one order for all: no deadlock among them.

    Row locks do not help where a row that another transaction is about to insert must be seen: a limit, an index. SQLite
    needs nothing, its write transactions are one after another.
    """
    dialect = connection.dialect.name
    if dialect == "sqlite":
        return
    for name in sorted({name for name in names if name is not None}):
        if dialect == "postgresql":
            number = int.from_bytes(sha256(b"session_core:" + name.encode()).digest()[:8], "big", signed=True)
            await connection.execute(_ADVISORY, {"number": number})
        else:
            # A row of its own, in the table that is swept anyway; the colon keeps it apart from real claims.
            await connection.execute(_LOCK_ROW, {"name": f"{_LOCK_PREFIX}{name}", "expires_at": now + _LOCK_ROW_MS})


def is_lock(name: str) -> bool:
    """Whether a row of the claims is a lock of MySQL's, which nobody has claimed."""
    return name.startswith(_LOCK_PREFIX)
