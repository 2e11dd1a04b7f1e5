"""Files that were answered with success and cannot be indexed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import insert_ignore
from gateway.store.tables import quarantine

FOLDER = "quarantine/"
"""How the paths of all quarantined files begin."""


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


def is_quarantined(connection: Connection, path: str) -> bool:
    """Say whether a file is listed."""
    return connection.scalar(sa.select(quarantine.c.id).where(quarantine.c.path == path)) is not None


def count_quarantined(connection: Connection) -> int:
    """Return how many files are listed."""
    return connection.scalar(sa.select(sa.func.count()).select_from(quarantine)) or 0


def remove_quarantined(connection: Connection, path: str) -> None:
    """Take a file from the list."""
    connection.execute(sa.delete(quarantine).where(quarantine.c.path == path))
