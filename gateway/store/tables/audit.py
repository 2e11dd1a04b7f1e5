"""Who did what: the audit trail. Its rows hold patients' identifiers, as PS3.15 A.5 wants; logs hold none."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import UID, metadata

audit_event = sa.Table(
    "audit_event",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),  # from 1, without a gap
    sa.Column("event_id", sa.String(36), nullable=False, unique=True),
    sa.Column("recorded_at", UtcDateTime, nullable=False, index=True),
    sa.Column("kind", sa.String(32), nullable=False),  # gateway.audit.event.Kind
    sa.Column("actor", sa.String(255), nullable=False),  # who asked: a user, an AE title, a role
    sa.Column("patient_id", sa.String(255), index=True),
    sa.Column("study_instance_uid", UID, index=True),
    sa.Column("body", sa.Text, nullable=False),  # JSON of the whole event; what stands beside it is taken from it
    sa.Column("previous", sa.String(64), nullable=False),  # hash of the line before
    sa.Column("hash", sa.String(64), nullable=False, index=True),  # of `previous` and `body`
)

audit_cursor = sa.Table(
    "audit_cursor",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),  # head: the last line; syslog, fhir: how far each has come
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),  # of the head's line; '' of the others
    sa.Column("seal", sa.String(64), nullable=False),  # of the head's position and hash; '' of the others
    sa.Column("held_until", UtcDateTime),  # by the process that works through what follows
)
