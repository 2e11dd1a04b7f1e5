"""The installation's secret, from which FHIR ids are derived: one for all hosts, wherever it was made first."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from gateway.store.engine import Store, insert_ignore
from gateway.store.tables import installation


def share(store: Store, file: Path) -> str:
    """See that this host's file and the database hold the same id, and return it.

    The first host's goes into the database; a host that comes later takes that, whatever it made for itself before.
    """
    own = file.read_text(encoding="ascii").strip() if file.exists() else str(uuid.uuid4())
    with store.write() as connection:
        row = {"number": 1, "installation_id": own, "created_at": datetime.now(UTC)}
        insert_ignore(connection, installation, [row], keys=["number"])
        shared = str(connection.scalar(sa.select(installation.c.installation_id)))
    if not file.exists() or shared != own:
        partial = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as handle:
            handle.write(f"{shared}\n")
            handle.flush()
            os.fsync(handle.fileno())
        partial.rename(file)
    return shared
