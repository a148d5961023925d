"""The tables of the embedded store: those of `session_core.stores.sql.schema`, without SQLAlchemy; a test compares the two."""

from __future__ import annotations

from typing import Final

__all__ = ("CHECKS", "TABLES")

TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS sessions (
    "key" VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    data BLOB NOT NULL,
    expires_at BIGINT NOT NULL,
    user_key VARCHAR(255),
    op_session_key VARCHAR(255),
    rank BIGINT NOT NULL,
    successor VARCHAR(255),
    PRIMARY KEY ("key")
)""",
    "CREATE INDEX IF NOT EXISTS ix_sessions_expires_at ON sessions (expires_at)",
    "CREATE INDEX IF NOT EXISTS ix_sessions_user_key ON sessions (user_key)",
    "CREATE INDEX IF NOT EXISTS ix_sessions_op_session_key ON sessions (op_session_key)",
    """CREATE TABLE IF NOT EXISTS session_claims (
    name VARCHAR(255) NOT NULL,
    expires_at BIGINT NOT NULL,
    token BIGINT,
    PRIMARY KEY (name)
)""",
    "CREATE INDEX IF NOT EXISTS ix_session_claims_expires_at ON session_claims (expires_at)",
)
"""`sessions`: a row with a `successor` is no session any more, it remembers what its key was rotated to. `session_claims`: a name
that is used up until `expires_at`; `token` is for databases across a network."""

CHECKS: Final = {
    "sessions": "SELECT key, version, data, expires_at, user_key, op_session_key, rank, successor FROM sessions LIMIT 0",
    "session_claims": "SELECT name, expires_at FROM session_claims LIMIT 0",
}
"""By table: fails when the table is missing, or is another one of that name."""
