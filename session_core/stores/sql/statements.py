"""The statements of the SQL store; each keeps the contract's conditions inside the statement itself.

Written once for both databases, in standard SQL; where MySQL needs another text, that stands beside it.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = (
    "CLAIM", "CLAIMED_BY", "CLAIMED_UNTIL", "CLAIM_MANY", "COUNT_OTHERS", "CREATE", "DELETE_KEYS", "END_SOME_OF", "FIND",
    "FORGET_EXPIRED_CLAIM", "FORGET_EXPIRED_SESSION", "HOLD", "HOLD_KEYS", "KEYS_OF_OTHERS", "LOAD", "LOCK", "MOVE_MANY",
    "OVERWRITE", "PAGE", "REPLACE_MANY", "TOUCH", "TOUCH_MANY", "TRACE", "TRY_LOCK", "TRY_WRITE", "VERSION", "VERSIONS",
    "Statement",
)  # fmt: skip

_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")
_LIST: Final = re.compile(r" IN (:[a-z_]+)")


class Statement:
    """One statement with named parameters (`:now`); `IN :keys` takes a list.

    `:deadline` is when the statement must have taken effect, and is given by the connection in the time of its server. Names
    that MySQL reserves are in double quotes.
    """

    __slots__ = ("mysql", "postgresql")

    def __init__(self, text: str, *, mysql: str | None = None) -> None:
        self.postgresql = _for_postgresql(text)
        """The text in the driver's form, and the names of its parameters in order."""
        self.mysql = _for_mysql(text if mysql is None else mysql)
        """Likewise."""


def _for_postgresql(text: str) -> tuple[str, tuple[str, ...]]:
    # Of all arrays the driver knows that of text alone. For others it would ask the server, and change a setting meanwhile, which
    # a pooler would pass on to another client.
    text = _LIST.sub(r" = ANY(\1::text[])", text)
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text), names


def _for_mysql(text: str) -> tuple[str, tuple[str, ...]]:
    return _PARAMETER.sub("%s", text).replace('"', "`"), tuple(_PARAMETER.findall(text))


_COLUMNS: Final = '"key", version, data, expires_at, user_key, op_session_key, "rank"'
_LIVE: Final = "successor IS NULL AND expires_at > :now"
_IN_TIME: Final = "extract(epoch FROM clock_timestamp()) < :deadline::float8"
_OR_FAIL: Final = f"1 / ({_IN_TIME})::int"
"""PostgreSQL evaluates what a statement returns after it has waited for locks: a division by zero undoes it."""
_IN_TIME_MYSQL: Final = "unix_timestamp(sysdate(6)) < :deadline"
"""MySQL locks a row before it evaluates a condition on it. `now()` would be the time at which the statement began."""

LOAD: Final = Statement(f'SELECT {_COLUMNS} FROM sessions WHERE "key" IN :keys AND {_LIVE}')
VERSION: Final = Statement(f'SELECT version FROM sessions WHERE "key" = :key AND {_LIVE}')
VERSIONS: Final = Statement(f'SELECT "key", version FROM sessions WHERE "key" IN :keys AND {_LIVE}')
FIND: Final = {
    index: Statement(
        f"SELECT {_COLUMNS} FROM sessions WHERE {index} = :value AND {_LIVE}",
        mysql=f'SELECT {_COLUMNS} FROM sessions WHERE {index} = :value AND "key" > :after AND {_LIVE} ORDER BY "key" LIMIT 200',
    )
    for index in ("user_key", "op_session_key")
}
"""MySQL's driver reads a whole result without a pause, hence page by page; its indexes hold the keys in order."""
PAGE: Final = Statement(f'SELECT {_COLUMNS} FROM sessions WHERE "key" > :after AND {_LIVE} ORDER BY "key" LIMIT 200')
TRACE: Final = Statement('SELECT "key", expires_at, successor FROM sessions WHERE "key" IN :keys AND expires_at > :now')

_INSERT_SESSION: Final = (
    f"INSERT INTO sessions ({_COLUMNS}) VALUES (:key, 1, :data, :expires_at, :user_key, :op_session_key, :rank)"
)
CREATE: Final = Statement(
    f"{_INSERT_SESSION} ON CONFLICT (key) DO UPDATE SET version = 1, data = excluded.data, expires_at = excluded.expires_at,"
    " user_key = excluded.user_key, op_session_key = excluded.op_session_key, rank = excluded.rank, successor = NULL"
    f" WHERE sessions.expires_at <= :now RETURNING {_OR_FAIL}",
    mysql=_INSERT_SESSION,
)
"""Takes the place of an expired row too; on MySQL after `FORGET_EXPIRED_SESSION`."""
FORGET_EXPIRED_SESSION: Final = Statement(
    'DELETE sessions FROM sessions FORCE INDEX (PRIMARY) WHERE "key" = :key AND expires_at <= :now'
)
_SET: Final = (
    "SET version = :version, data = :data, expires_at = :expires_at, user_key = :user_key, op_session_key = :op_session_key,"
    ' "rank" = :rank, successor = :successor'
)
_AT_VERSION: Final = f'WHERE "key" = :key AND version = :expected AND {_LIVE}'
OVERWRITE: Final = Statement(
    f"UPDATE sessions {_SET} {_AT_VERSION}", mysql=f"UPDATE sessions {_SET} {_AT_VERSION} AND {_IN_TIME_MYSQL}"
)
_LATER: Final = 'UPDATE sessions SET expires_at = greatest(expires_at, :later) WHERE "key" = :key'
TOUCH: Final = Statement(f"{_LATER} AND {_LIVE}", mysql=f"{_LATER} AND {_LIVE} AND {_IN_TIME_MYSQL}")

# A batch waits for no lock: what another transaction holds is passed over, and written on its own. So two batches cannot
# deadlock, whatever order the server takes the rows in, and one locked session does not delay the others.
REPLACE_MANY: Final = Statement(
    "WITH held AS (SELECT key FROM sessions WHERE key IN :keys AND successor IS NULL AND expires_at > :now"
    " ORDER BY key FOR UPDATE SKIP LOCKED)"
    " UPDATE sessions SET version = new.version + 1, data = new.data, expires_at = new.expires_at, user_key = new.user_key,"
    " op_session_key = new.op_session_key, rank = new.rank"
    " FROM held, (SELECT key, version::bigint, substring(:data::bytea, start::int, length::int) AS data, expires_at::bigint,"
    " user_key, op_session_key, rank::bigint, deadline::float8 FROM unnest(:keys::text[], :versions::text[], :starts::text[],"
    " :lengths::text[], :expires_at::text[], :user_keys::text[], :op_session_keys::text[], :ranks::text[], :deadlines::text[])"
    " AS given (key, version, start, length, expires_at, user_key, op_session_key, rank, deadline)) AS new"
    " WHERE new.key = held.key AND sessions.key = held.key AND sessions.version = new.version"
    " AND extract(epoch FROM clock_timestamp()) < new.deadline RETURNING sessions.key"
)
MOVE_MANY: Final = Statement(
    "WITH given AS MATERIALIZED (SELECT given.*, CASE WHEN most = '0' THEN 0 ELSE count(*) OVER (PARTITION BY user_key)"
    " + (SELECT count(*) FROM sessions AS other WHERE other.user_key = given.user_key AND other.successor IS NULL"
    " AND other.expires_at > :now) END AS taken FROM unnest(:keys::text[], :versions::text[], :new_keys::text[], :starts::text[],"
    " :lengths::text[], :expires_at::text[], :user_keys::text[], :op_session_keys::text[], :ranks::text[], :until::text[],"
    " :names::text[], :limits::text[], :deadlines::text[]) AS given (key, version, new_key, start, length, expires_at, user_key,"
    " op_session_key, rank, until, name, most, deadline)),"
    " held AS MATERIALIZED (SELECT key FROM sessions WHERE key IN :keys AND successor IS NULL AND expires_at > :now"
    " ORDER BY key FOR UPDATE SKIP LOCKED),"
    " moved AS (UPDATE sessions SET version = sessions.version + 1, data = '', expires_at = given.until::bigint, user_key = NULL,"
    " op_session_key = NULL, rank = 0, successor = given.new_key"
    " FROM held, given WHERE given.key = held.key AND sessions.key = held.key AND sessions.version = given.version::bigint"
    " AND given.most::bigint >= given.taken"
    " AND extract(epoch FROM clock_timestamp()) < given.deadline::float8 RETURNING given.*),"
    " made AS (INSERT INTO sessions (key, version, data, expires_at, user_key, op_session_key, rank) SELECT new_key, 1,"
    " substring(:data::bytea, start::int, length::int), expires_at::bigint, user_key, op_session_key, rank::bigint FROM moved)"
    " SELECT key, pg_notify('session_core_ended', name)::text FROM moved"
)
"""Retires the old rows, inserts the new ones, announces the old ones; the locks on their users and OP sessions are held.

What another transaction holds is passed over, as above, and so are users who would be at their limit. A new key that is taken is
an error, which undoes the whole batch.

A user's sessions are counted beside the given rows: in a condition of the join, PostgreSQL counts them for each pair of rows.
"""
TOUCH_MANY: Final = Statement(
    "WITH held AS (SELECT key FROM sessions WHERE key IN :keys AND successor IS NULL AND expires_at > :now"
    " ORDER BY key FOR UPDATE SKIP LOCKED)"
    " UPDATE sessions SET expires_at = greatest(sessions.expires_at, new.later::bigint)"
    " FROM held, unnest(:keys::text[], :later::text[], :deadlines::text[]) AS new (key, later, deadline)"
    " WHERE new.key = held.key AND sessions.key = held.key"
    " AND extract(epoch FROM clock_timestamp()) < new.deadline::float8 RETURNING sessions.key"
)

HOLD: Final = Statement('SELECT successor, expires_at FROM sessions WHERE "key" = :key FOR UPDATE')
"""Waits for a rotation in flight and then looks at the row again."""
_OTHERS: Final = f'FROM sessions WHERE user_key = :value AND "key" <> :keep AND {_LIVE}'
COUNT_OTHERS: Final = Statement(f"SELECT count(*) {_OTHERS}")
"""How many live sessions a user has but `keep`; those that another transaction is just ending count as well."""
KEYS_OF_OTHERS: Final = Statement(
    f'SELECT "key" {_OTHERS} ORDER BY "rank", "key" LIMIT :most FOR UPDATE',
    # A locking read would also wait for the user's expired sessions that a sweeper is at.
    mysql=f'SELECT "key" {_OTHERS} ORDER BY "rank", "key" LIMIT :most',
)
"""Their keys, those of the lowest rank first; on MySQL `HOLD_KEYS` locks them afterwards."""
END_SOME_OF: Final = {
    index: Statement(
        f"WITH found AS MATERIALIZED ({select}), picked AS MATERIALIZED (SELECT key FROM found LIMIT :most),"
        f" held AS MATERIALIZED (SELECT key FROM sessions WHERE key IN (SELECT key FROM picked) AND {_LIVE}"
        " ORDER BY rank, key FOR UPDATE),"
        " ended AS (DELETE FROM sessions USING held WHERE sessions.key = held.key RETURNING sessions.key)"
        " SELECT key, key IN (SELECT key FROM ended) FROM picked",
        mysql=f"{select} LIMIT :most",
    )
    for index in ("user_key", "op_session_key")
    for select in (f'SELECT "key" FROM sessions WHERE {index} = :value AND "key" <> :keep AND {_LIVE}',)
}
"""On PostgreSQL deletes some sessions of an index; returns their keys, and whether each was still live. On MySQL, which cannot
return what it deletes, the keys for `HOLD_KEYS`.

PostgreSQL plans the inner part for all rows, by the index: for a few it might read the table from its beginning, and pass all
that earlier steps have deleted."""
HOLD_KEYS: Final = Statement(
    f'SELECT "key" FROM sessions WHERE "key" IN :keys AND {_LIVE} ORDER BY "rank", "key" FOR UPDATE',
    mysql=f'SELECT "key" FROM sessions FORCE INDEX (PRIMARY) WHERE "key" IN :keys AND {_LIVE} ORDER BY "rank", "key" FOR UPDATE',
)
"""In one order for all, so that two transactions do not deadlock."""
DELETE_KEYS: Final = Statement('DELETE FROM sessions WHERE "key" IN :keys')

_INSERT_CLAIM: Final = "INSERT INTO session_claims (name, expires_at, token) VALUES (:name, :expires_at, :token)"
CLAIM: Final = Statement(
    f"{_INSERT_CLAIM} ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at, token = excluded.token"
    f" WHERE session_claims.expires_at <= :now RETURNING {_OR_FAIL}",
    mysql=_INSERT_CLAIM,
)
"""Takes the place of an expired row too; on MySQL after `FORGET_EXPIRED_CLAIM`."""
FORGET_EXPIRED_CLAIM: Final = Statement(
    "DELETE session_claims FROM session_claims FORCE INDEX (PRIMARY) WHERE name = :name AND expires_at <= :now"
)
CLAIM_MANY: Final = Statement(
    "INSERT INTO session_claims (name, expires_at, token) SELECT name, expires_at::bigint, token::bigint"
    " FROM unnest(:keys::text[], :expires_at::text[], :tokens::text[]) AS given (name, expires_at, token) ORDER BY name"
    " ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at, token = excluded.token"
    f" WHERE session_claims.expires_at <= :now RETURNING name, {_OR_FAIL}"
)
"""In the order of their names, so that two batches cannot deadlock."""
CLAIMED_BY: Final = Statement("SELECT token FROM session_claims WHERE name = :name AND expires_at > :now")
CLAIMED_UNTIL: Final = Statement("SELECT expires_at FROM session_claims WHERE name = :name AND expires_at > :now")

LOCK: Final = Statement(
    "INSERT INTO session_claims (name, expires_at) VALUES (:name, :expires_at) ON DUPLICATE KEY UPDATE expires_at = :expires_at"
)
"""Held until the transaction ends, on MySQL: a separate row, in the table that is swept anyway."""
TRY_LOCK: Final = Statement(
    "SELECT number FROM unnest(:numbers::text[]) AS number WHERE pg_try_advisory_xact_lock(number::bigint)"
)
"""Takes those of PostgreSQL's locks that are free, until the transaction ends, and returns them."""
TRY_WRITE: Final = Statement("UPDATE session_claims SET expires_at = 0 WHERE name = ''")
"""Matches no row, but still fails where writes are impossible: on a read-only replica or a full disk."""
