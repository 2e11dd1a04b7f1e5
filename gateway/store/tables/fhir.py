"""FHIR resources as they are served, what they are found by, and bulk exports of them."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import BIG, UID, metadata

_BYTEWISE = sa.String(1024).with_variant(sa.String(1024, collation="C"), "postgresql")
"""Compared byte by byte, as SQLite does it: a text that begins with another is then a range of the index."""

_BYTEWISE_ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
"""An id, compared as index values are: with another collation no index would lead from one to the other."""

fhir_resource = sa.Table(
    "fhir_resource",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("resource_id", _BYTEWISE_ID, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("is_current", sa.Boolean, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False, server_default=sa.false()),  # a version that says: no more
    sa.Column("last_updated", UtcDateTime, nullable=False),
    sa.Column("study_instance_uid", UID, index=True),
    sa.Column("job_id", sa.String(36), index=True),
    sa.Column("body", sa.LargeBinary, nullable=False),  # JSON in UTF-8, served as it lies; last: it is the largest
    sa.UniqueConstraint("type", "resource_id", "version"),
    sa.Index("ix_fhir_resource_type", "type", "last_updated", "id"),
    sa.Index("ix_fhir_resource_last_updated", "last_updated"),
)
sa.Index(
    "uq_fhir_resource_current",
    fhir_resource.c.type,
    fhir_resource.c.resource_id,
    unique=True,
    sqlite_where=sa.text("is_current = 1"),
    postgresql_where=fhir_resource.c.is_current,
)
sa.Index(
    "ix_fhir_resource_order",
    fhir_resource.c.type,
    fhir_resource.c.id,
    sqlite_where=sa.text("is_current = 1"),
    postgresql_where=fhir_resource.c.is_current,
)

# Rows of current versions alone: what was replaced is found by no search.
fhir_index = sa.Table(
    "fhir_index",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("resource_pk", BIG, sa.ForeignKey("fhir_resource.id", ondelete="CASCADE"), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("parameter", sa.String(64), nullable=False),  # search parameter name
    sa.Column("system", sa.String(255)),  # token: system; reference: resource type; quantity: system of the unit
    sa.Column("value", _BYTEWISE),  # token: code; reference: id; string: folded; quantity: code of the unit
    sa.Column("text", sa.String(1024)),  # token, reference: its display, folded; string: as it stands
    sa.Column("number", sa.Float),  # quantity
    sa.Column("low", UtcDateTime),  # date: start and end of the period that the value means
    sa.Column("high", UtcDateTime),
    sa.Column("other_system", sa.String(255)),  # composite: as system and value, of its second part
    sa.Column("other_value", sa.String(1024)),
    sa.Index("ix_fhir_index_value", "type", "parameter", "value", "resource_pk", "system"),
    sa.Index("ix_fhir_index_resource_pk", "resource_pk", "parameter", "value", "low"),
)
sa.Index(
    "ix_fhir_index_date",
    *(fhir_index.c[name] for name in ("type", "parameter", "low", "resource_pk", "high")),
    sqlite_where=fhir_index.c.low.is_not(None),
    postgresql_where=fhir_index.c.low.is_not(None),
)
sa.Index(
    "ix_fhir_index_number",
    *(fhir_index.c[name] for name in ("type", "parameter", "number", "resource_pk")),
    sqlite_where=fhir_index.c.number.is_not(None),
    postgresql_where=fhir_index.c.number.is_not(None),
)

fhir_index_state = sa.Table(
    "fhir_index_state",
    metadata,
    sa.Column("parameters", sa.String(64), primary_key=True),  # digest of the search parameters that rows stand for
)

fhir_export = sa.Table(
    "fhir_export",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("requested_at", UtcDateTime, nullable=False, index=True),
    sa.Column("request", sa.Text, nullable=False),  # the address that was asked
    sa.Column("owner", sa.String(255)),  # who asked, as kind and name; null: nobody had to say
    sa.Column("types", sa.JSON, nullable=False),
    sa.Column("patients_only", sa.Boolean, nullable=False),
    sa.Column("since", UtcDateTime),
    sa.Column("state", sa.String(16), nullable=False),  # queued, running, done, failed, cancelled
    sa.Column("progress", sa.Integer, nullable=False),  # resources written so far
    sa.Column("seen_at", UtcDateTime, nullable=False),  # when the process that writes it last said so
    sa.Column("files", sa.JSON, nullable=False),  # of what is done: type and count
)
