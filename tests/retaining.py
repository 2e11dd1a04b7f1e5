"""A finished study with all that belongs to one, and rules by which it goes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.audit.chain import ChainKey
from gateway.config.retention import Retention
from gateway.store import Store
from gateway.store.tables import (
    artefact,
    delivery,
    demographic_issue,
    job,
    metadata,
    removal,
    workitem,
)
from tests.stores import NOON, add_instance, add_series, add_study

KEY = ChainKey()
RULES = Retention(max_age_days=30, keep_unverified=False)
LATER = NOON + timedelta(days=40)
UID = "1.2.7"


def fill(connection: Connection, data_dir: Path, uid: str = UID) -> list[Path]:
    """Put a finished study in, with a done job and everything that belongs to one; return its files."""
    add_study(connection, uid, patient_id="P7", accession_number="A7")
    add_series(connection, uid, f"{uid}.1")
    names = [f"instances/ab/{uid}.{number}.dcm" for number in range(3)]
    for number, name in enumerate(names):
        add_instance(connection, uid, f"{uid}.1", f"{uid}.1.{number}", path=name, is_current=number > 0)
    now, job_id = {"created_at": NOON}, f"job-{uid}"
    row = {"id": job_id, "study_instance_uid": uid, "study_revision": 1, "bundle": "b", "revision": 1, "state": "done"}
    row |= {"priority": "routine", "destinations": [], "attempts": 1, "available_at": NOON, "requested_by": "dispatch"}
    connection.execute(sa.insert(job).values(**row, **now))
    result = f"results/{job_id}/seg.dcm"
    made = {"job_id": job_id, "kind": "seg", "ordinal": 0, "variant": "", "media_type": "application/dicom"}
    made |= {
        "study_instance_uid": uid,
        "series_instance_uid": f"{uid}.9",
        "path": result,
        "digest": "0",
        "size_bytes": 5,
    }
    connection.execute(sa.insert(artefact).values(**made, **now))
    sent = {"job_id": job_id, "destination": "PACS", "state": "done", "attempts": 1, "available_at": NOON}
    connection.execute(sa.insert(delivery).values(**sent, **now))
    connection.execute(sa.insert(workitem).values(job_id=job_id, attributes={}, updated_at=NOON))
    differs = {"study_instance_uid": uid, "patient": "p", "elements": ["name"], "source": "EHR", "noted_at": NOON}
    connection.execute(sa.insert(demographic_issue).values(**differs))
    files = [data_dir / name for name in [*names, result]]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"bytes")
    return files


def mentions(store: Store, uid: str = UID) -> list[str]:
    """Return the tables that still name the study; the audit trail, and what was removed lately, aside."""
    named = []
    with store.read() as connection:
        for table in metadata.sorted_tables:
            due = [table.c.removed_at.is_(None)] if table is removal else []
            rows = [str(tuple(row)) for row in connection.execute(sa.select(table).where(*due))]
            if table.name != "audit_event" and any(uid in row for row in rows):
                named.append(table.name)
    return named
