"""The application's own tables: users and the audit trail. The session store brings its tables itself."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

__all__ = ("audit", "metadata", "users")

metadata: Final = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"},
)
_counter: Final = BigInteger().with_variant(Integer(), "sqlite")

users: Final = Table(
    "users",
    metadata,
    # The digest of issuer and subject: the stable name of a user, short enough for every index.
    Column("user_key", String(64), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("subject", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("email", String(320)),
    Column("roles", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_login_at", BigInteger, nullable=False),
    Index(None, "last_login_at"),
)
"""One row per user of an identity provider. `roles` is a JSON list; times are Unix milliseconds."""

audit: Final = Table(
    "audit_trail",
    metadata,
    Column("id", _counter, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("event", String(64), nullable=False),
    Column("user_key", String(64)),
    Column("actor", String(64)),
    Column("session", String(64)),
    Column("reason", String(128)),
    Column("ip", String(45)),
    Column("user_agent", String(256)),
    Column("detail", Text),
    Column("count", Integer, nullable=False, server_default="1"),
    Index(None, "user_key"),
    Index(None, "session"),
    Index(None, "at"),
)
"""One row per event, or per `count` repetitions by visitors. `actor` is who did it to the user: the key of another user, or
`command line`. `session` is the public handle; ids, tokens and cookies have no column."""
