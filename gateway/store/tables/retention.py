"""Files that are to be removed, or have been lately; how many bytes are kept."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store.engine import UtcDateTime
from gateway.store.tables.base import BIG, metadata

removal = sa.Table(
    "removal",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("path", sa.String(255), nullable=False, unique=True),  # relative to the data folder
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("removed_at", UtcDateTime),  # the row stays a while: who stores the same bytes meanwhile learns of it
)

tally = sa.Table(
    "tally",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),  # 'instance' or 'artefact'
    sa.Column("up_to", sa.BigInteger, nullable=False),  # rows with numbers up to this one are counted
    sa.Column("size_bytes", sa.BigInteger, nullable=False),  # of those that still stand
)
