"""Who receives, and what was received."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import AE, BIG, UID, metadata

service = sa.Table(
    "service",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # ready | degraded | draining
    sa.Column("reason", sa.Text),
    sa.Column("counters", sa.JSON, nullable=False),  # name -> number, for /metrics
    sa.Column("exemplars", sa.JSON(none_as_null=True)),  # bucket -> trace id, value, time
)

association = sa.Table(
    "association",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("service_id", sa.String(36), nullable=False, index=True),
    sa.Column("calling_ae", AE, nullable=False),
    sa.Column("called_ae", AE, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("closed_at", UtcDateTime, index=True),
    sa.Column("outcome", sa.String(16)),  # released | aborted | lost
    sa.Column("is_audited", sa.Boolean, nullable=False, server_default=sa.false()),  # what it brought is in the trail
    sa.Index("ix_association_is_audited_closed_at", "is_audited", "closed_at"),
)

study = sa.Table(
    "study",
    metadata,
    sa.Column("study_instance_uid", UID, primary_key=True),
    sa.Column("patient_id", sa.String(255), nullable=False, index=True),
    sa.Column("patient_id_issuer", sa.String(255), nullable=False),
    sa.Column("patient_name", sa.String(1024), nullable=False),  # component groups in UTF-8, '=' and '^' kept
    sa.Column("patient_birth_date", sa.String(8), nullable=False),
    sa.Column("patient_sex", sa.String(16), nullable=False),
    sa.Column("accession_number", sa.String(64), nullable=False, index=True),
    sa.Column("accession_issuer", sa.String(255), nullable=False),
    sa.Column("study_id", sa.String(64), nullable=False),
    sa.Column("study_date", sa.String(8), nullable=False, index=True),
    sa.Column("study_time", sa.String(16), nullable=False),
    sa.Column("timezone_offset", sa.String(8), nullable=False),
    sa.Column("study_description", sa.String(1024), nullable=False),
    sa.Column("referring_physician", sa.String(1024), nullable=False),
    sa.Column(
        "announced_count", sa.Integer
    ),  # Number of Study Related Instances (0020,1208), where the images carry it
    sa.Column("calling_ae", AE, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),  # receiving | routed | unrouted
    sa.Column("state_reason", sa.Text),
    sa.Column("priority", sa.String(8), nullable=False),  # stat | routine
    sa.Column("revision", sa.Integer, nullable=False),  # from 1; late instances open the next
    sa.Column("first_received_at", UtcDateTime, nullable=False),
    sa.Column("last_received_at", UtcDateTime, nullable=False, index=True),
    sa.Column("completed_at", UtcDateTime),
    # gateway.person_name.folded of the names beside them: what queries match, whatever the case and the accents.
    sa.Column("patient_name_folded", sa.String(1024), nullable=False, server_default=""),
    sa.Column("referring_physician_folded", sa.String(1024), nullable=False, server_default=""),
    sa.Column("held_by", sa.String(255)),  # who keeps it, whatever the rules of retention say
    sa.Column("hold_reason", sa.Text),
    sa.Column("held_at", UtcDateTime),
    sa.Column("suspicion", sa.Float),  # highest calibrated probability of a positive class among the current findings
    sa.Index("ix_study_patient", "patient_id", "patient_id_issuer", "study_date"),
    sa.Index("ix_study_urgency", "priority", "suspicion", "last_received_at"),
    sa.Index("ix_study_newest", "study_date", "study_time", "study_instance_uid"),  # the order of query answers
    sa.Index("ix_study_patient_name", "patient_name_folded", "study_instance_uid"),
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("study_instance_uid", UID, sa.ForeignKey("study.study_instance_uid"), primary_key=True),
    sa.Column("series_instance_uid", UID, primary_key=True, index=True),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("body_part", sa.String(64), nullable=False),
    sa.Column("series_description", sa.String(1024), nullable=False),
    sa.Column("series_number", sa.Integer),
    sa.Column("series_date", sa.String(8), nullable=False),
    sa.Column("series_time", sa.String(16), nullable=False),
    sa.Column("performed_date", sa.String(8)),  # Performed Procedure Step Start Date (0040,0244)
    sa.Column("performed_time", sa.String(16)),
    sa.Column("requested_procedure_id", sa.String(64)),  # of the first Request Attributes item (0040,0275)
    sa.Column("scheduled_step_id", sa.String(64)),
    sa.Index("ix_series_modality", "modality", "study_instance_uid"),
)

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("sop_instance_uid", UID, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # SHA-256 of transfer syntax UID and data set
    sa.Column("sop_class_uid", UID, nullable=False),
    sa.Column("transfer_syntax_uid", UID, nullable=False),
    sa.Column("study_instance_uid", UID, nullable=False),
    sa.Column("series_instance_uid", UID, nullable=False, index=True),
    sa.Column("instance_number", sa.Integer),
    sa.Column("number_of_frames", sa.Integer),
    sa.Column("rows", sa.Integer),
    sa.Column("columns", sa.Integer),
    sa.Column("path", sa.String(255), nullable=False),  # relative to the data folder
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("is_current", sa.Boolean, nullable=False),  # of several with one SOP Instance UID, the latest
    sa.Column("study_revision", sa.Integer, nullable=False),
    sa.Column("association_id", sa.String(36), nullable=False, index=True),
    sa.Column("calling_ae", AE, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("sop_instance_uid", "digest"),
    sa.ForeignKeyConstraint(
        ["study_instance_uid", "series_instance_uid"], ["series.study_instance_uid", "series.series_instance_uid"]
    ),
    # Counts and SOP classes of a study's series are read from this index alone.
    sa.Index("ix_instance_study_current", "study_instance_uid", "is_current", "series_instance_uid", "sop_class_uid"),
)

association_content = sa.Table(
    "association_content",
    metadata,
    # An instance that comes twice stays with the association that brought its bytes first; both carried its study.
    sa.Column("association_id", sa.String(36), primary_key=True),
    sa.Column("study_instance_uid", UID, sa.ForeignKey("study.study_instance_uid"), primary_key=True, index=True),
    sa.Column("sop_class_uid", UID, primary_key=True),
    sa.Column("instances", sa.Integer, nullable=False),  # that came, repeated ones too
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("path", sa.String(255), nullable=False, unique=True),  # relative to the data folder
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("calling_ae", AE, nullable=False),
    sa.Column("quarantined_at", UtcDateTime, nullable=False),
)

rejection = sa.Table(
    "rejection",
    metadata,
    sa.Column("sop_instance_uid", UID, primary_key=True),  # of the instance that is no longer shown; its file stays
    sa.Column("study_instance_uid", UID, nullable=False, index=True),
    sa.Column("series_instance_uid", UID, nullable=False),
    sa.Column("code", sa.String(16), nullable=False),  # DCM: 113001, 113037, 113038, 113039 (CID 7011)
    sa.Column("note_sop_instance_uid", UID),  # of the IOCM rejection note
    sa.Column("requested_by", sa.String(64), nullable=False),  # AE title, or 'web'
    sa.Column("rejected_at", UtcDateTime, nullable=False),
)
