"""Corrections of a study's identity, and notices that the AI did not run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nobody is told of jobs that ended before there were notices."""
    op.add_column("aside", sa.Column("revision", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_aside_sop_instance_uid", "aside", ["sop_instance_uid"])
    op.add_column("job", sa.Column("noticed", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_index("ix_job_noticed", "job", ["noticed", "state"])
