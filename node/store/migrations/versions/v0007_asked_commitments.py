"""Storage commitments that we ask peers for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.store.tables import UtcTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; nothing was asked for yet."""
    op.create_table(
        "asked_commitment",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("asked_at", UtcTime(), nullable=False),
        sa.Column("accepted_at", UtcTime(), nullable=True),
        sa.Column("reported_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid"),
    )
