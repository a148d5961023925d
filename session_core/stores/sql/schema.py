"""The tables of the SQL store, as a `metadata` that migrations can compare against; independent of statements."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import mysql

__all__ = ("claims", "metadata", "session_tables", "sessions")

# MySQL compares text without regard to case unless told otherwise: two base64url keys that differ in case only would be
# one session. Its default BLOB ends at 64 KiB and would cut a larger session.
_name: Final = String(255).with_variant(mysql.VARCHAR(255, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
_data: Final = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")

metadata: Final = MetaData()
"""For alembic's `target_metadata`, beside your own, to keep these tables in your migrations."""

sessions: Final = Table(
    "sessions",
    metadata,
    Column("key", _name, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("data", _data, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("user_key", _name),
    Column("op_session_key", _name),
    Column("rank", BigInteger, nullable=False),
    Column("successor", _name),
    Index("ix_sessions_expires_at", "expires_at"),
    Index("ix_sessions_user_key", "user_key"),
    Index("ix_sessions_op_session_key", "op_session_key"),
)
"""One row per session. A row with a `successor` is no session any more: it remembers what its key was rotated to."""

claims: Final = Table(
    "session_claims",
    metadata,
    Column("name", _name, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Column("token", BigInteger),
    Index("ix_session_claims_expires_at", "expires_at"),
)
"""One row per name that is used up until `expires_at`. By the random `token` its owner knows it again after a lost answer."""


def session_tables(target: MetaData) -> None:
    """Add the tables to your own `MetaData`, for a project that has only one.

    In either case open the store with `SqlStore(url, create_tables=False)`.
    """
    for table in metadata.sorted_tables:
        table.to_metadata(target)
