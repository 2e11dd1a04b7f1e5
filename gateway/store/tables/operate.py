"""What all hosts of one installation share."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import metadata

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # always 1: there is one row
    sa.Column("installation_id", sa.String(36), nullable=False),  # secret that FHIR ids are derived from
    sa.Column("created_at", UtcDateTime, nullable=False),
)

schema_floor = sa.Table(
    "schema_floor",
    metadata,
    # Programs that know this revision run on the schema as it is, though it may be newer than they are.
    sa.Column("revision", sa.String(32), primary_key=True),
)
