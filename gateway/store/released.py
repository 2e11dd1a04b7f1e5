"""Objects that are out before their job is done.

A worker commits the DICOM objects of a job, with their deliveries, as soon as they lie on disk; pictures, documents and
FHIR resources follow in the transaction that makes the job done. Between the two the job is running, or waits for its
next try, or was given up; what is out stays: the next try takes these objects and makes no others.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.tables import artefact


def has_released(of: sa.FromClause) -> sa.ColumnElement[bool]:
    """Say of rows of the job table, or of an alias of it, whether objects of theirs are out."""
    return sa.exists().where(artefact.c.job_id == of.c.id)


def is_released(connection: Connection, job_id: str) -> bool:
    """Say whether objects of a job are out."""
    return connection.scalar(sa.select(artefact.c.id).where(artefact.c.job_id == job_id).limit(1)) is not None
