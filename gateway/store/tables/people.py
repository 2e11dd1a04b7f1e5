"""What people and their programs ask for: commitment, workitems, sessions."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import AE, BIG, UID, metadata

commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("transaction_uid", UID, nullable=False),  # (0008,1195)
    sa.Column("calling_ae", AE, nullable=False),
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
    sa.Column("sop_instance_uid", UID, unique=True),  # that its creator chose; null: 2.25.<job id>
    sa.Column("transaction_uid", UID),  # of an external performer's claim (PS3.4 CC.2.1)
    sa.Column("label", sa.String(64)),  # Procedure Step Label of its creator; null: the bundle's name
    sa.Column("worklist_label", sa.String(64)),
    sa.Column("attributes", sa.JSON, nullable=False),  # DICOM JSON: what creator and performer wrote
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

workitem_event = sa.Table(
    "workitem_event",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36)),  # null: of the gateway itself
    sa.Column("subscriber_ae", AE, nullable=False),  # to be told; the row goes when it is
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
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("subject", UID, nullable=False),  # a job's id, or the well-known UID of the global subscription
    sa.Column("subscriber_ae", AE, nullable=False),
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
    sa.Column("token_digest", sa.String(64)),  # of the token that opened it
    sa.Column("person", sa.JSON(none_as_null=True)),  # name and roles, where OpenID Connect opened it
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
)
