"""A claim has a token, by which its owner knows it again after a lost answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is missing: a session store that was opened first has added it itself."""
    if context.is_offline_mode() or "token" not in _columns():
        op.add_column("session_claims", sa.Column("token", sa.BigInteger))


def downgrade() -> None:
    """Drop it."""
    with op.batch_alter_table("session_claims") as batch:
        batch.drop_column("token")


def _columns() -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns("session_claims")}
