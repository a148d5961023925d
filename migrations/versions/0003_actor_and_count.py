"""An audit entry names who did it, and how often it was repeated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; what is there was done by the user, once."""
    with op.batch_alter_table("audit_trail") as batch:
        batch.add_column(sa.Column("actor", sa.String(64)))
        batch.add_column(sa.Column("count", sa.Integer, nullable=False, server_default="1"))


def downgrade() -> None:
    """Drop both."""
    with op.batch_alter_table("audit_trail") as batch:
        batch.drop_column("count")
        batch.drop_column("actor")
