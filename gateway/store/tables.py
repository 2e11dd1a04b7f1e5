"""All tables. Times are UTC; UIDs are strings of at most 64 characters (PS3.5 9.1)."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite numbers rows by itself for INTEGER alone
_UID = sa.String(64)
_AE = sa.String(16)

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
)

association = sa.Table(
    "association",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("service_id", sa.String(36), nullable=False, index=True),
    sa.Column("calling_ae", _AE, nullable=False),
    sa.Column("called_ae", _AE, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("closed_at", UtcDateTime, index=True),
    sa.Column("outcome", sa.String(16)),  # released | aborted | lost
)

study = sa.Table(
    "study",
    metadata,
    sa.Column("study_instance_uid", _UID, primary_key=True),
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
    sa.Column("calling_ae", _AE, nullable=False),
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
    sa.Column("suspicion", sa.Float),  # highest calibrated probability of a positive class among the current findings
    sa.Index("ix_study_patient", "patient_id", "patient_id_issuer", "study_date"),
    sa.Index("ix_study_urgency", "priority", "suspicion", "last_received_at"),
    sa.Index("ix_study_newest", "study_date", "study_time", "study_instance_uid"),  # the order of query answers
    sa.Index("ix_study_patient_name", "patient_name_folded", "study_instance_uid"),
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("study_instance_uid", _UID, sa.ForeignKey("study.study_instance_uid"), primary_key=True),
    sa.Column("series_instance_uid", _UID, primary_key=True, index=True),
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
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("sop_instance_uid", _UID, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # SHA-256 of transfer syntax UID and data set
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("transfer_syntax_uid", _UID, nullable=False),
    sa.Column("study_instance_uid", _UID, nullable=False),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True),
    sa.Column("instance_number", sa.Integer),
    sa.Column("number_of_frames", sa.Integer),
    sa.Column("rows", sa.Integer),
    sa.Column("columns", sa.Integer),
    sa.Column("path", sa.String(255), nullable=False),  # relative to the data folder
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("is_current", sa.Boolean, nullable=False),  # of several with one SOP Instance UID, the latest
    sa.Column("study_revision", sa.Integer, nullable=False),
    sa.Column("association_id", sa.String(36), nullable=False, index=True),
    sa.Column("calling_ae", _AE, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("sop_instance_uid", "digest"),
    sa.ForeignKeyConstraint(
        ["study_instance_uid", "series_instance_uid"], ["series.study_instance_uid", "series.series_instance_uid"]
    ),
    # Counts and SOP classes of a study's series are read from this index alone.
    sa.Index("ix_instance_study_current", "study_instance_uid", "is_current", "series_instance_uid", "sop_class_uid"),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("path", sa.String(255), nullable=False, unique=True),  # relative to the data folder
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("calling_ae", _AE, nullable=False),
    sa.Column("quarantined_at", UtcDateTime, nullable=False),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("study_instance_uid", _UID, sa.ForeignKey("study.study_instance_uid"), nullable=False),
    sa.Column("study_revision", sa.Integer, nullable=False),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),  # of the results of this study and bundle, from 1
    sa.Column("state", sa.String(16), nullable=False),  # gateway.job.State
    sa.Column("priority", sa.String(8), nullable=False),  # stat | routine
    sa.Column("destinations", sa.JSON, nullable=False),  # names
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("available_at", UtcDateTime, nullable=False),  # not claimed before
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_expires_at", UtcDateTime),
    sa.Column("reason", sa.Text),  # why it waits, is not evaluable, dead or cancelled
    sa.Column("requested_by", sa.String(16), nullable=False),  # dispatch | reprocess | verification | workitem
    sa.Column("algorithm", sa.JSON(none_as_null=True)),  # name, version, weights_digest of what ran
    sa.Column("summary", sa.JSON(none_as_null=True)),  # findings without voxels, for lists
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("trace_context", sa.JSON(none_as_null=True)),  # W3C traceparent
    sa.Column("verification", sa.JSON(none_as_null=True)),  # who verified the revision before, when, and what was said
    sa.UniqueConstraint("study_instance_uid", "bundle", "revision"),
    sa.Index("ix_job_claim", "state", "priority", "available_at"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False, index=True),
    sa.Column("priority", sa.String(8), nullable=False),
    sa.Column("available_at", UtcDateTime, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("published_at", UtcDateTime, index=True),
)

artefact = sa.Table(
    "artefact",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),  # sr-findings, sr-measurements, seg, heatmap-…, overlay, …
    sa.Column("ordinal", sa.Integer, nullable=False),  # which outcome of the job
    sa.Column("variant", sa.String(64), nullable=False),  # '' or the rendering options that differ by destination
    sa.Column("media_type", sa.String(64), nullable=False),  # application/dicom, image/png
    sa.Column("study_instance_uid", _UID, nullable=False, index=True),
    sa.Column("series_instance_uid", _UID),
    sa.Column("sop_class_uid", _UID),
    sa.Column("sop_instance_uid", _UID, index=True),
    sa.Column("path", sa.String(255), nullable=False),  # relative to the data folder
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # As in the object, for queries; null in rows of earlier versions and of pictures.
    sa.Column("modality", sa.String(16)),
    sa.Column("series_number", sa.Integer),
    sa.Column("series_description", sa.String(1024)),
    sa.Column("series_date", sa.String(8)),
    sa.Column("series_time", sa.String(16)),
    sa.Column("instance_number", sa.Integer),
    sa.Column("number_of_frames", sa.Integer),
    sa.Column("rows", sa.Integer),
    sa.Column("columns", sa.Integer),
    sa.UniqueConstraint("job_id", "kind", "ordinal", "variant"),
    sa.Index("ix_artefact_modality", "modality", "study_instance_uid"),
)

finding = sa.Table(
    "finding",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False, index=True),
    sa.Column("study_instance_uid", _UID, nullable=False, index=True),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),  # which outcome of the job
    sa.Column("tracking_id", sa.String(64), nullable=False),
    sa.Column("level", sa.String(64), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),  # of the class that is the answer
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("is_positive", sa.Boolean, nullable=False),
    sa.Column("is_current", sa.Boolean, nullable=False),  # of the latest done revision of its study and bundle
    sa.Index("ix_finding_name", "name", "is_current", "probability"),
)

rejection = sa.Table(
    "rejection",
    metadata,
    sa.Column("sop_instance_uid", _UID, primary_key=True),  # of the instance that is no longer shown; its file stays
    sa.Column("study_instance_uid", _UID, nullable=False, index=True),
    sa.Column("series_instance_uid", _UID, nullable=False),
    sa.Column("code", sa.String(16), nullable=False),  # DCM: 113001, 113037, 113038, 113039 (CID 7011)
    sa.Column("note_sop_instance_uid", _UID),  # of the IOCM rejection note
    sa.Column("requested_by", sa.String(64), nullable=False),  # AE title, or 'web'
    sa.Column("rejected_at", UtcDateTime, nullable=False),
)

commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("transaction_uid", _UID, nullable=False),  # (0008,1195)
    sa.Column("calling_ae", _AE, nullable=False),
    sa.Column("referenced", sa.JSON, nullable=False),  # [[SOP Class UID, SOP Instance UID], …]
    sa.Column("state", sa.String(16), nullable=False),  # waiting | done | failed
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("available_at", UtcDateTime, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.UniqueConstraint("calling_ae", "transaction_uid"),
    sa.Index("ix_commitment_due", "state", "available_at"),
)

workitem = sa.Table(
    "workitem",
    metadata,
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), primary_key=True),
    sa.Column("sop_instance_uid", _UID, unique=True),  # that its creator chose; null: 2.25.<job id>
    sa.Column("transaction_uid", _UID),  # of an external performer's claim (PS3.4 CC.2.1)
    sa.Column("label", sa.String(64)),  # Procedure Step Label of its creator; null: the bundle's name
    sa.Column("worklist_label", sa.String(64)),
    sa.Column("attributes", sa.JSON, nullable=False),  # DICOM JSON: what creator and performer wrote
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

workitem_event = sa.Table(
    "workitem_event",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36)),  # null: of the gateway itself
    sa.Column("subscriber_ae", _AE, nullable=False),  # to be told; the row goes when it is
    sa.Column("channel", sa.String(9), nullable=False),  # websocket | dimse
    sa.Column("kind", sa.Integer, nullable=False),  # Event Type ID of PS3.4 table CC.2.4-1
    sa.Column("content", sa.JSON, nullable=False),  # DICOM JSON of the event information
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("available_at", UtcDateTime, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False, index=True),
    sa.Index("ix_workitem_event_due", "channel", "subscriber_ae", "id"),
)

workitem_subscription = sa.Table(
    "workitem_subscription",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("subject", _UID, nullable=False),  # a job's id, or the well-known UID of the global subscription
    sa.Column("subscriber_ae", _AE, nullable=False),
    sa.Column("is_subscribed", sa.Boolean, nullable=False),  # false: an exception to the global subscription
    sa.Column("has_deletion_lock", sa.Boolean, nullable=False),
    sa.Column("suspended_at", UtcDateTime),  # global: what is made later is not subscribed
    sa.Column("filter", sa.JSON(none_as_null=True)),  # filtered global: keyword -> value
    sa.Column("by_websocket", sa.Boolean, nullable=False),
    sa.Column("by_dimse", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("subject", "subscriber_ae"),
)

web_session = sa.Table(
    "web_session",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),  # SHA-256 of the number in the browser's cookie
    sa.Column("token_digest", sa.String(64), nullable=False),  # of the token that opened it
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
)

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False),
    sa.Column("destination", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # waiting | done | failed
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("available_at", UtcDateTime, nullable=False),
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_expires_at", UtcDateTime),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.UniqueConstraint("job_id", "destination"),
    sa.Index("ix_delivery_claim", "state", "destination", "available_at"),
)

fhir_resource = sa.Table(
    "fhir_resource",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("resource_id", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("is_current", sa.Boolean, nullable=False),
    sa.Column("last_updated", UtcDateTime, nullable=False),
    sa.Column("study_instance_uid", _UID, index=True),
    sa.Column("job_id", sa.String(36), index=True),
    sa.Column("body", sa.LargeBinary, nullable=False),  # JSON in UTF-8, served as it lies
    sa.UniqueConstraint("type", "resource_id", "version"),
    sa.Index("ix_fhir_resource_type", "type", "is_current", "last_updated"),
)

fhir_index = sa.Table(
    "fhir_index",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("resource_pk", _BIG, sa.ForeignKey("fhir_resource.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("parameter", sa.String(64), nullable=False),  # search parameter name
    sa.Column("system", sa.String(255)),  # token: system; reference: resource type
    sa.Column("value", sa.String(1024)),  # token: code; reference: id; string: as is
    sa.Column("low", UtcDateTime),  # date: start and end of the period that the value means
    sa.Column("high", UtcDateTime),
    sa.Index("ix_fhir_index_value", "type", "parameter", "value", "system"),
    sa.Index("ix_fhir_index_date", "type", "parameter", "low"),
)
