"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from node.store.tables import UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "aside",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("peer", sa.String(), nullable=True),
        sa.Column("sop_instance_uid", sa.String(), nullable=True),
        sa.Column("study_uid", sa.String(), nullable=True),
        sa.Column("digest", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("path"),
    )
    op.create_index(op.f("ix_aside_study_uid"), "aside", ["study_uid"], unique=False)
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("matched", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_decision_study_uid"), "decision", ["study_uid"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("not_before", UtcTime(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("lease_until", UtcTime(), nullable=True),
        sa.Column("delivered_at", UtcTime(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_delivery_due", "delivery", ["peer", "state", "not_before"], unique=False)
    op.create_index(op.f("ix_delivery_job_id"), "delivery", ["job_id"], unique=False)
    op.create_index(op.f("ix_delivery_study_uid"), "delivery", ["study_uid"], unique=False)
    op.create_index("ux_delivery", "delivery", ["sop_instance_uid", "peer"], unique=True)
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=True),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("from_state", sa.String(), nullable=True),
        sa.Column("to_state", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_event_study_uid"), "event", ["study_uid"], unique=False)
    op.create_table(
        "instance",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("peer", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid"),
        sa.UniqueConstraint("path"),
    )
    op.create_index(op.f("ix_instance_job_id"), "instance", ["job_id"], unique=False)
    op.create_index(op.f("ix_instance_series_uid"), "instance", ["series_uid"], unique=False)
    op.create_index(op.f("ix_instance_study_uid"), "instance", ["study_uid"], unique=False)
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("model_digest", sa.String(), nullable=False),
        sa.Column("model_title", sa.String(), nullable=False),
        sa.Column("send_to", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("not_before", UtcTime(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("lease_until", UtcTime(), nullable=True),
        sa.Column("started_at", UtcTime(), nullable=True),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("findings", sa.JSON(), nullable=True),
        sa.Column("timings", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_job_due", "job", ["state", "not_before"], unique=False)
    op.create_index(op.f("ix_job_study_uid"), "job", ["study_uid"], unique=False)
    op.create_table(
        "study",
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("first_at", UtcTime(), nullable=False),
        sa.Column("last_at", UtcTime(), nullable=False),
        sa.Column("settle_at", UtcTime(), nullable=True),
        sa.Column("peer", sa.String(), nullable=True),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("study_uid"),
    )
    op.create_index("ix_study_due", "study", ["state", "settle_at"], unique=False)
    op.create_index(op.f("ix_study_last_at"), "study", ["last_at"], unique=False)


def downgrade() -> None:
    """Drop every table."""
    op.drop_index(op.f("ix_study_last_at"), table_name="study")
    op.drop_index("ix_study_due", table_name="study")
    op.drop_table("study")
    op.drop_index(op.f("ix_job_study_uid"), table_name="job")
    op.drop_index("ix_job_due", table_name="job")
    op.drop_table("job")
    op.drop_index(op.f("ix_instance_study_uid"), table_name="instance")
    op.drop_index(op.f("ix_instance_series_uid"), table_name="instance")
    op.drop_index(op.f("ix_instance_job_id"), table_name="instance")
    op.drop_table("instance")
    op.drop_index(op.f("ix_event_study_uid"), table_name="event")
    op.drop_table("event")
    op.drop_index("ux_delivery", table_name="delivery")
    op.drop_index(op.f("ix_delivery_study_uid"), table_name="delivery")
    op.drop_index(op.f("ix_delivery_job_id"), table_name="delivery")
    op.drop_index("ix_delivery_due", table_name="delivery")
    op.drop_table("delivery")
    op.drop_index(op.f("ix_decision_study_uid"), table_name="decision")
    op.drop_table("decision")
    op.drop_index(op.f("ix_aside_study_uid"), table_name="aside")
    op.drop_table("aside")
