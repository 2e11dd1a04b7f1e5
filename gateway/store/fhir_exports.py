"""Bulk exports of FHIR resources: a row each, so that any process tells how far one is."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.tables import fhir_export

State = Literal["queued", "running", "done", "failed", "cancelled"]
_OPEN: tuple[State, ...] = ("queued", "running")
DELETED = "deleted"
"""Name of the file that lists what is gone, beside those that are named by types."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """An export as it stands."""

    id: str
    requested_at: datetime
    request: str
    """The address that was asked."""
    owner: str | None
    """Who asked; None: nobody had to say."""
    types: list[str]
    patients_only: bool
    since: datetime | None
    state: State
    progress: int
    """Resources written so far."""
    seen_at: datetime
    files: list[dict[str, int | str]]
    """Type and count of what is written, once it is done; `DELETED` for the list of what is gone."""


def add_export(  # noqa: PLR0913 # what was asked, by name
    connection: Connection,
    now: datetime,
    *,
    request: str,
    owner: str | None,
    types: Sequence[str],
    patients_only: bool,
    since: datetime | None,
    most_open: int,
) -> str | None:
    """Queue an export and return its id; None where as many as may be are open already."""
    counted = sa.select(sa.func.count()).select_from(fhir_export).where(fhir_export.c.state.in_(_OPEN))
    if (connection.scalar(counted) or 0) >= most_open:
        return None
    export_id = str(uuid.uuid4())
    row = {"id": export_id, "requested_at": now, "request": request, "owner": owner}
    row |= {"types": list(types), "since": since}
    row |= {"patients_only": patients_only, "state": "queued", "progress": 0, "seen_at": now, "files": []}
    connection.execute(sa.insert(fhir_export), row)
    return export_id


def get_export(connection: Connection, export_id: str) -> ExportRow | None:
    """Return an export; None where there is none."""
    row = connection.execute(_rows().where(fhir_export.c.id == export_id)).first()
    return None if row is None else ExportRow(**row._mapping)


def claim_export(connection: Connection, now: datetime, silence: timedelta) -> ExportRow | None:
    """Take the export that waits longest, or one whose process fell silent; None where there is nothing to do."""
    waits = sa.or_(
        fhir_export.c.state == "queued",
        sa.and_(fhir_export.c.state == "running", fhir_export.c.seen_at < now - silence),
    )
    query = _rows().where(waits).order_by(fhir_export.c.requested_at).limit(1).with_for_update(skip_locked=True)
    row = connection.execute(query).first()
    if row is None:
        return None
    update = sa.update(fhir_export).where(fhir_export.c.id == row.id)
    connection.execute(update.values(state="running", seen_at=now, progress=0))
    return ExportRow(**row._mapping)


def note_progress(connection: Connection, export_id: str, now: datetime, progress: int) -> bool:
    """Say that an export goes on; False where it was cancelled meanwhile."""
    mine = (fhir_export.c.id == export_id, fhir_export.c.state == "running")
    changed = connection.execute(sa.update(fhir_export).where(*mine).values(seen_at=now, progress=progress))
    return changed.rowcount == 1


def end_export(
    connection: Connection, export_id: str, now: datetime, state: State, files: Sequence[dict[str, int | str]]
) -> None:
    """Say how an export ended, unless it was cancelled."""
    mine = (fhir_export.c.id == export_id, fhir_export.c.state == "running")
    connection.execute(sa.update(fhir_export).where(*mine).values(state=state, seen_at=now, files=list(files)))


def remove_export(connection: Connection, export_id: str) -> bool:
    """Forget an export, running or done; False where there is none."""
    return connection.execute(sa.delete(fhir_export).where(fhir_export.c.id == export_id)).rowcount == 1


def expired_exports(connection: Connection, before: datetime) -> list[str]:
    """Return the exports that were asked for before a moment."""
    return list(connection.scalars(sa.select(fhir_export.c.id).where(fhir_export.c.requested_at < before)))


def _rows() -> sa.Select[tuple[object, ...]]:
    return sa.select(*(fhir_export.c[name] for name in ExportRow.__slots__))
