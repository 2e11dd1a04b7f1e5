"""Files that were answered with success and cannot be indexed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import insert_ignore
from gateway.store.tables import quarantine


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """One such file."""

    path: str
    """Relative to the data folder."""
    size_bytes: int
    reason: str
    calling_ae: str
    quarantined_at: datetime


def add_quarantined(connection: Connection, quarantined: QuarantinedFile) -> None:
    """List a file; a no-op where it is listed already."""
    insert_ignore(connection, quarantine, [asdict(quarantined)], keys=["path"])


def list_quarantined(connection: Connection, *, limit: int = 100) -> Sequence[QuarantinedFile]:
    """Return the files, the latest first."""
    columns = [quarantine.c[field.name] for field in fields(QuarantinedFile)]
    query = sa.select(*columns).order_by(quarantine.c.quarantined_at.desc(), quarantine.c.id.desc()).limit(limit)
    return [QuarantinedFile(**row._mapping) for row in connection.execute(query)]
