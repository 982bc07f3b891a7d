"""Storage commitments, and the manifests of studies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.store.tables import UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("named", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("asked_at", UtcTime(), nullable=False),
        sa.Column("due_at", UtcTime(), nullable=False),
        sa.Column("failures", sa.JSON(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("lease_until", UtcTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_commitment_due", "commitment", ["state", "due_at"], unique=False)
    op.create_index(op.f("ix_commitment_transaction_uid"), "commitment", ["transaction_uid"], unique=False)
    op.create_table(
        "manifest",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=True),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_manifest_uid", "manifest", ["kind", "uid"], unique=False)
    op.create_index(op.f("ix_manifest_study_uid"), "manifest", ["study_uid"], unique=False)
    op.create_index(op.f("ix_manifest_at"), "manifest", ["at"], unique=False)
    op.create_table(
        "manifest_instance",
        sa.Column("manifest_id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifest.id"]),
        sa.PrimaryKeyConstraint("manifest_id", "sop_instance_uid"),
    )
    op.create_index(
        op.f("ix_manifest_instance_sop_instance_uid"), "manifest_instance", ["sop_instance_uid"], unique=False
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("manifest_instance")
    op.drop_table("manifest")
    op.drop_table("commitment")
