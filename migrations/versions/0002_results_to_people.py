"""What radiologists and viewers ask for: queries over results, worklist, verification, workitems, commitment.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.person_name import folded
from gateway.store.findings import finding_rows, suspicion

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
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("subscriber_ae", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=9), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_event")),
    )
    op.create_index(op.f("ix_workitem_event_created_at"), "workitem_event", ["created_at"], unique=False)
    op.create_index("ix_workitem_event_due", "workitem_event", ["channel", "subscriber_ae", "id"], unique=False)

    op.create_table(
        "workitem_subscription",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("subscriber_ae", sa.String(length=16), nullable=False),
        sa.Column("is_subscribed", sa.Boolean(), nullable=False),
        sa.Column("has_deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("filter", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("by_websocket", sa.Boolean(), nullable=False),
        sa.Column("by_dimse", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_subscription")),
        sa.UniqueConstraint("subject", "subscriber_ae", name=op.f("uq_workitem_subscription_subject_subscriber_ae")),
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
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("label", sa.String(length=64), nullable=True),
        sa.Column("worklist_label", sa.String(length=64), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_workitem_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_workitem")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_workitem_sop_instance_uid")),
    )
    op.create_table(
        "web_session",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("token_digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_web_session")),
    )
    op.create_index(op.f("ix_web_session_expires_at"), "web_session", ["expires_at"], unique=False)

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

    op.add_column("study", sa.Column("patient_name_folded", sa.String(length=1024), server_default="", nullable=False))
    op.add_column(
        "study", sa.Column("referring_physician_folded", sa.String(length=1024), server_default="", nullable=False)
    )
    _fold_names()
    op.create_index("ix_study_newest", "study", ["study_date", "study_time", "study_instance_uid"], unique=False)
    op.create_index("ix_study_patient_name", "study", ["patient_name_folded", "study_instance_uid"], unique=False)
    op.create_index("ix_artefact_modality", "artefact", ["modality", "study_instance_uid"], unique=False)
    op.create_index("ix_series_modality", "series", ["modality", "study_instance_uid"], unique=False)
    op.drop_index("ix_instance_study_current", table_name="instance")
    op.create_index(
        "ix_instance_study_current",
        "instance",
        ["study_instance_uid", "is_current", "series_instance_uid", "sop_class_uid"],
        unique=False,
    )
    _fill_findings()


def _fill_findings() -> None:
    """Write the findings of the newest results that are there, and how suspicious their studies are."""
    names = ("id", "study_instance_uid", "bundle", "revision", "state")
    job = sa.table("job", *(sa.column(name) for name in names), sa.column("summary", sa.JSON))
    study = sa.table("study", sa.column("study_instance_uid"), sa.column("suspicion"))
    columns = ("job_id", "study_instance_uid", "bundle", "ordinal", "tracking_id", "level", "name", "probability")
    finding = sa.table("finding", *(sa.column(name) for name in (*columns, "is_positive", "is_current")))
    newer = job.alias()
    is_replaced = sa.exists().where(
        newer.c.study_instance_uid == job.c.study_instance_uid,
        newer.c.bundle == job.c.bundle,
        newer.c.revision > job.c.revision,
        newer.c.state == "done",
    )
    query = sa.select(job.c.id, job.c.study_instance_uid, job.c.bundle, job.c.summary)
    query = query.where(job.c.state == "done", ~is_replaced).order_by(job.c.id).limit(500)
    connection, last = op.get_bind(), ""
    while rows := connection.execute(query.where(job.c.id > last)).all():
        for row in rows:
            about = {"job_id": row.id, "study_instance_uid": row.study_instance_uid, "bundle": row.bundle}
            found = [{**about, **each, "is_current": True} for each in finding_rows(row.summary)]
            if found:
                connection.execute(sa.insert(finding), found)
            value = suspicion(row.summary, None)
            is_higher = sa.or_(study.c.suspicion.is_(None), study.c.suspicion < value)
            if value is not None:
                of_study = study.c.study_instance_uid == row.study_instance_uid
                connection.execute(sa.update(study).where(of_study, is_higher).values(suspicion=value))
        last = rows[-1].id


def _fold_names() -> None:
    """Write the folded names of the studies that are there."""
    study = sa.table(
        "study",
        *(sa.column(name) for name in ("study_instance_uid", "patient_name", "referring_physician")),
        *(sa.column(name) for name in ("patient_name_folded", "referring_physician_folded")),
    )
    connection = op.get_bind()
    uid = study.c.study_instance_uid
    last = ""
    while True:
        query = sa.select(uid, study.c.patient_name, study.c.referring_physician).where(uid > last)
        rows = connection.execute(query.order_by(uid).limit(1000)).all()
        if not rows:
            return
        statement = sa.update(study).where(uid == sa.bindparam("of_study"))
        connection.execute(
            statement.values(
                patient_name_folded=sa.bindparam("patient"), referring_physician_folded=sa.bindparam("physician")
            ),
            [
                {"of_study": row[0], "patient": folded(row.patient_name), "physician": folded(row.referring_physician)}
                for row in rows
            ],
        )
        last = rows[-1][0]


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_instance_study_current", table_name="instance")
    op.create_index("ix_instance_study_current", "instance", ["study_instance_uid", "is_current"], unique=False)
    op.drop_index("ix_series_modality", table_name="series")
    op.drop_index("ix_artefact_modality", table_name="artefact")
    op.drop_index("ix_study_patient_name", table_name="study")
    op.drop_index("ix_study_newest", table_name="study")
    op.drop_column("study", "referring_physician_folded")
    op.drop_column("study", "patient_name_folded")

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

    op.drop_index(op.f("ix_web_session_expires_at"), table_name="web_session")

    op.drop_table("web_session")
    op.drop_table("workitem")
    op.drop_index(op.f("ix_finding_study_instance_uid"), table_name="finding")
    op.drop_index("ix_finding_name", table_name="finding")
    op.drop_index(op.f("ix_finding_job_id"), table_name="finding")

    op.drop_table("finding")
    op.drop_table("workitem_subscription")
    op.drop_index("ix_workitem_event_due", table_name="workitem_event")
    op.drop_index(op.f("ix_workitem_event_created_at"), table_name="workitem_event")

    op.drop_table("workitem_event")
    op.drop_index(op.f("ix_rejection_study_instance_uid"), table_name="rejection")

    op.drop_table("rejection")
    op.drop_index("ix_commitment_due", table_name="commitment")

    op.drop_table("commitment")
