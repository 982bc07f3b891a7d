"""The priority of a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; every job until now was routine."""
    op.add_column("job", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
