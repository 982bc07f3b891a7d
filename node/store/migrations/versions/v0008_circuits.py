"""Which peers answer, and how often a delivery was refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.store.tables import UtcTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; every peer answers until it is found not to."""
    op.add_column("delivery", sa.Column("refusals", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "circuit",
        sa.Column("peer", sa.String(), primary_key=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("probe_at", UtcTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
    )
