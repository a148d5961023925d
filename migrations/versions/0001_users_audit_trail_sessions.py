"""Users, the audit trail, and the tables of the SQL session store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_name = sa.String(255).with_variant(mysql.VARCHAR(255, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
_data = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create what is missing: a session store that was opened first has made its own tables."""
    present = set() if context.is_offline_mode() else set(sa.inspect(op.get_bind()).get_table_names())
    if "users" not in present:
        _create_users()
    if "audit_trail" not in present:
        _create_audit_trail()
    if "sessions" not in present:
        _create_sessions()
    if "session_claims" not in present:
        _create_session_claims()


def downgrade() -> None:
    """Drop all of it, every session included."""
    for table in ("session_claims", "sessions", "audit_trail", "users"):
        op.drop_table(table)


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("user_key", sa.String(64), nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("email", sa.String(320)),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_login_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_key", name="pk_users"),
    )
    op.create_index("ix_users_last_login_at", "users", ["last_login_at"])


def _create_audit_trail() -> None:
    op.create_table(
        "audit_trail",
        sa.Column("id", _counter, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("user_key", sa.String(64)),
        sa.Column("session", sa.String(64)),
        sa.Column("reason", sa.String(128)),
        sa.Column("ip", sa.String(45)),
        sa.Column("user_agent", sa.String(256)),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_audit_trail"),
    )
    for column in ("user_key", "session", "at"):
        op.create_index(f"ix_audit_trail_{column}", "audit_trail", [column])


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("key", _name, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("data", _data, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("user_key", _name),
        sa.Column("op_session_key", _name),
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("successor", _name),
    )
    for column in ("expires_at", "user_key", "op_session_key"):
        op.create_index(f"ix_sessions_{column}", "sessions", [column])


def _create_session_claims() -> None:
    op.create_table(
        "session_claims",
        sa.Column("name", _name, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_session_claims_expires_at", "session_claims", ["expires_at"])
