"""What radiologists and viewers ask for: queries over results, worklist, verification, workitems, commitment.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "commitment",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("referenced", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint("calling_ae", "transaction_uid", name=op.f("uq_commitment_calling_ae_transaction_uid")),
    )
    op.create_index("ix_commitment_due", "commitment", ["state", "available_at"], unique=False)

    op.create_table(
        "rejection",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("note_sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("requested_by", sa.String(length=64), nullable=False),
        sa.Column("rejected_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_rejection")),
    )
    op.create_index(op.f("ix_rejection_study_instance_uid"), "rejection", ["study_instance_uid"], unique=False)

    op.create_table(
        "workitem_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_event")),
    )
    op.create_index(op.f("ix_workitem_event_created_at"), "workitem_event", ["created_at"], unique=False)
    op.create_index(op.f("ix_workitem_event_job_id"), "workitem_event", ["job_id"], unique=False)

    op.create_table(
        "workitem_subscription",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("workitem_uid", sa.String(length=64), nullable=False),
        sa.Column("subscriber_ae", sa.String(length=16), nullable=False),
        sa.Column("has_deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("is_suspended", sa.Boolean(), nullable=False),
        sa.Column("last_event_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_subscription")),
        sa.UniqueConstraint(
            "workitem_uid", "subscriber_ae", name=op.f("uq_workitem_subscription_workitem_uid_subscriber_ae")
        ),
    )
    op.create_table(
        "finding",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("tracking_id", sa.String(length=64), nullable=False),
        sa.Column("level", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("is_positive", sa.Boolean(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_finding_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_finding")),
    )
    op.create_index(op.f("ix_finding_job_id"), "finding", ["job_id"], unique=False)
    op.create_index("ix_finding_name", "finding", ["name", "is_current", "probability"], unique=False)
    op.create_index(op.f("ix_finding_study_instance_uid"), "finding", ["study_instance_uid"], unique=False)

    op.create_table(
        "workitem",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_workitem_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_workitem")),
    )
    op.add_column("artefact", sa.Column("modality", sa.String(length=16), nullable=True))
    op.add_column("artefact", sa.Column("series_number", sa.Integer(), nullable=True))
    op.add_column("artefact", sa.Column("series_description", sa.String(length=1024), nullable=True))
    op.add_column("artefact", sa.Column("series_date", sa.String(length=8), nullable=True))
    op.add_column("artefact", sa.Column("series_time", sa.String(length=16), nullable=True))
    op.add_column("artefact", sa.Column("instance_number", sa.Integer(), nullable=True))
    op.add_column("artefact", sa.Column("number_of_frames", sa.Integer(), nullable=True))
    op.add_column("artefact", sa.Column("rows", sa.Integer(), nullable=True))
    op.add_column("artefact", sa.Column("columns", sa.Integer(), nullable=True))

    op.add_column("job", sa.Column("verification", sa.JSON(none_as_null=True), nullable=True))

    op.add_column("series", sa.Column("performed_date", sa.String(length=8), nullable=True))
    op.add_column("series", sa.Column("performed_time", sa.String(length=16), nullable=True))
    op.add_column("series", sa.Column("requested_procedure_id", sa.String(length=64), nullable=True))
    op.add_column("series", sa.Column("scheduled_step_id", sa.String(length=64), nullable=True))

    op.add_column("study", sa.Column("suspicion", sa.Float(), nullable=True))
    op.create_index("ix_study_patient", "study", ["patient_id", "patient_id_issuer", "study_date"], unique=False)
    op.create_index("ix_study_urgency", "study", ["priority", "suspicion", "last_received_at"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_study_urgency", table_name="study")
    op.drop_index("ix_study_patient", table_name="study")
    op.drop_column("study", "suspicion")

    op.drop_column("series", "scheduled_step_id")
    op.drop_column("series", "requested_procedure_id")
    op.drop_column("series", "performed_time")
    op.drop_column("series", "performed_date")

    op.drop_column("job", "verification")

    op.drop_column("artefact", "columns")
    op.drop_column("artefact", "rows")
    op.drop_column("artefact", "number_of_frames")
    op.drop_column("artefact", "instance_number")
    op.drop_column("artefact", "series_time")
    op.drop_column("artefact", "series_date")
    op.drop_column("artefact", "series_description")
    op.drop_column("artefact", "series_number")
    op.drop_column("artefact", "modality")

    op.drop_table("workitem")
    op.drop_index(op.f("ix_finding_study_instance_uid"), table_name="finding")
    op.drop_index("ix_finding_name", table_name="finding")
    op.drop_index(op.f("ix_finding_job_id"), table_name="finding")

    op.drop_table("finding")
    op.drop_table("workitem_subscription")
    op.drop_index(op.f("ix_workitem_event_job_id"), table_name="workitem_event")
    op.drop_index(op.f("ix_workitem_event_created_at"), table_name="workitem_event")

    op.drop_table("workitem_event")
    op.drop_index(op.f("ix_rejection_study_instance_uid"), table_name="rejection")

    op.drop_table("rejection")
    op.drop_index("ix_commitment_due", table_name="commitment")

    op.drop_table("commitment")
