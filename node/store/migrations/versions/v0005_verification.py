"""Deliveries that are urgent, that close a result, and that are verified."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.store.tables import UtcTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what is on its way is routine, closes nothing, and its peer's word is enough."""
    op.add_column("delivery", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("closes", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("delivery", sa.Column("verify_at", UtcTime(), nullable=True))
    op.add_column("delivery", sa.Column("transaction_uid", sa.String(), nullable=True))
    op.add_column("delivery", sa.Column("missing", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_delivery_verify", "delivery", ["peer", "state", "verify_at"])
    op.create_index("ix_delivery_transaction_uid", "delivery", ["transaction_uid"])
