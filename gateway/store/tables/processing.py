"""Jobs, what they found and where it goes."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import BIG, UID, metadata

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("study_instance_uid", UID, sa.ForeignKey("study.study_instance_uid"), nullable=False),
    sa.Column("study_revision", sa.Integer, nullable=False),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),  # of the results of this study and bundle, from 1
    sa.Column("state", sa.String(16), nullable=False),  # gateway.job.State
    sa.Column("priority", sa.String(8), nullable=False),  # stat | routine
    sa.Column("destinations", sa.JSON, nullable=False),  # names
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("device_losses", sa.Integer, nullable=False, server_default="0"),  # tries that took the worker's device
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
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False, index=True),
    sa.Column("priority", sa.String(8), nullable=False),
    sa.Column("available_at", UtcDateTime, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("published_at", UtcDateTime, index=True),
)

artefact = sa.Table(
    "artefact",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),  # sr-findings, seg, heatmap-…, picture-…, document-…
    sa.Column("ordinal", sa.Integer, nullable=False),  # which outcome of the job
    sa.Column("variant", sa.String(64), nullable=False),  # '' or the rendering options that differ by destination
    sa.Column("media_type", sa.String(64), nullable=False),  # application/dicom, image/png, text/html, application/pdf
    sa.Column("study_instance_uid", UID, nullable=False, index=True),
    sa.Column("series_instance_uid", UID),
    sa.Column("sop_class_uid", UID),
    sa.Column("sop_instance_uid", UID, index=True),
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
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False, index=True),
    sa.Column("study_instance_uid", UID, nullable=False, index=True),
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

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
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
