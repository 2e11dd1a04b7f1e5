"""A study raised to STAT."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import NotFoundError
from gateway.job import State
from gateway.store.outbox import add_message
from gateway.store.studies import lock_study
from gateway.store.tables import job, outbox, study
from gateway.store.transitions import job_changed


def raise_to_stat(connection: Connection, study_instance_uid: str, now: datetime) -> int:
    """Make a study and its jobs that wait STAT; return how many jobs that are.

    What runs is left to end. A message that lies in the routine queue stays there and finds its job taken; another
    one goes to the queue for STAT.

    Raises
    ------
    NotFoundError
        There is no such study.
    """
    if not lock_study(connection, study_instance_uid):
        raise NotFoundError(f"no study {study_instance_uid}")
    of_study = study.c.study_instance_uid == study_instance_uid
    connection.execute(sa.update(study).where(of_study).values(priority="stat"))
    waits = (job.c.study_instance_uid == study_instance_uid, job.c.state == State.QUEUED, job.c.priority != "stat")
    rows = connection.execute(sa.select(job.c.id, job.c.available_at).where(*waits).with_for_update()).all()
    for row in rows:
        connection.execute(sa.update(job).where(job.c.id == row.id).values(priority="stat"))
        unpublished = (outbox.c.job_id == row.id, outbox.c.published_at.is_(None))
        if connection.execute(sa.update(outbox).where(*unpublished).values(priority="stat")).rowcount == 0:
            add_message(connection, row.id, "stat", now, max(now, row.available_at))
        job_changed(connection, row.id, now)
    return len(rows)
