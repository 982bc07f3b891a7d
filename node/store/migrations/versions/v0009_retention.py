"""What was removed, and what is on its way out; which deliveries reject earlier results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.store.tables import UtcTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them. A note that is on its way already goes ahead of its report, as it was meant to."""
    op.add_column("delivery", sa.Column("rejects", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "removal",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
    )
    op.create_table(
        "pruned",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
    )
