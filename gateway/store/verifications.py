"""Revisions that a person made: which results stand, and the row of a verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import ConflictError
from gateway.job import State
from gateway.store.jobs import JobFilter, JobRow, get_job, list_jobs
from gateway.store.results import NewArtefact, list_artefacts
from gateway.store.studies import get_study
from gateway.store.tables import delivery, job
from gateway.store.workitem_events import note_state

REQUESTED_BY = "verification"
NOTE = "note-rejection"
"""Kind of an artefact that is a rejection note; every destination takes it."""
_MOST_REVISIONS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """The newest done result of a study and bundle, with the revisions that it is made of."""

    origin: JobRow
    """The algorithm's result."""
    verified: tuple[JobRow, ...]
    """What persons made of it, the first before the next; usually none or one."""

    @property
    def newest(self) -> JobRow:
        """The job whose summary holds."""
        return self.verified[-1] if self.verified else self.origin

    @property
    def jobs(self) -> tuple[JobRow, ...]:
        """All of them, the oldest first."""
        return (self.origin, *self.verified)


def standing(connection: Connection, study_instance_uid: str, bundle: str) -> Standing | None:
    """Return the result that stands; None where no job is done."""
    which = JobFilter(states=(State.DONE,), study_instance_uid=study_instance_uid, bundle=bundle)
    done = sorted(list_jobs(connection, which, limit=_MOST_REVISIONS), key=lambda row: row.revision)
    origins = [position for position, row in enumerate(done) if row.verification is None]
    if not origins:
        return None
    return Standing(done[origins[-1]], tuple(done[origins[-1] + 1 :]))


def standing_jobs(connection: Connection, study_instance_uid: str) -> list[str]:
    """Return the jobs whose objects make up what is known of a study now; of a rejected result, its rejection alone.

    Raises
    ------
    NotFoundError
        There is no such study.
    """
    get_study(connection, study_instance_uid)
    bundles = connection.scalars(
        sa.select(job.c.bundle).where(job.c.study_instance_uid == study_instance_uid).distinct().order_by(job.c.bundle)
    ).all()
    ids: list[str] = []
    for bundle in bundles:
        found = standing(connection, study_instance_uid, bundle)
        if found is not None:
            is_rejected = (found.newest.verification or {}).get("action") == "reject"
            ids += [row.id for row in ((found.newest,) if is_rejected else found.jobs)]
    return ids


def standing_of(connection: Connection, job_id: str) -> Standing:
    """Return the result that stands where this job's did or does.

    Raises
    ------
    NotFoundError
        There is no such job.
    ConflictError
        Nothing is done yet.
    """
    row = get_job(connection, job_id)
    found = standing(connection, row.study_instance_uid, row.bundle)
    if found is None:
        raise ConflictError(f"job {job_id} is {row.state}: there is no result to verify")
    return found


def unfinished_job(connection: Connection, newest: JobRow) -> JobRow | None:
    """Return a job of the same study and bundle that waits or runs and will replace this result."""
    which = JobFilter(
        states=(State.QUEUED, State.RUNNING), study_instance_uid=newest.study_instance_uid, bundle=newest.bundle
    )
    return next((row for row in list_jobs(connection, which, limit=1)), None)


def standing_artefacts(connection: Connection, found: Standing) -> list[NewArtefact]:
    """Return the files that make up a standing result: of each kind, outcome and variant the newest.

    Rejection notes are not among them, nor what belonged to segments of an outcome that has none left.
    """
    by_key: dict[tuple[int, str, str], NewArtefact] = {}
    for row in found.jobs:
        for each in list_artefacts(connection, row.id):
            by_key[each.ordinal, each.kind, each.variant] = each
    outcomes: Sequence[Mapping[str, Any]] = (found.newest.summary or {}).get("outcomes", ())
    empty = {ordinal for ordinal, each in enumerate(outcomes) if not each.get("segments")}
    of_segments = {"seg", "sr-measurements"}
    return [
        each
        for each in by_key.values()
        if each.kind != NOTE and not (each.kind in of_segments and each.ordinal in empty)
    ]


def words_before(
    connection: Connection, study_instance_uid: str, bundle: str, revision: int
) -> list[Mapping[str, Any] | None]:
    """Return for each done revision before one, the oldest first, what a person said; None: an algorithm's result."""
    query = sa.select(job.c.verification).where(
        job.c.study_instance_uid == study_instance_uid,
        job.c.bundle == bundle,
        job.c.state == State.DONE,
        job.c.revision < revision,
    )
    return list(connection.scalars(query.order_by(job.c.revision)))


def next_revision(connection: Connection, study_instance_uid: str, bundle: str) -> int:
    """Return the number of the revision to come."""
    same = (job.c.study_instance_uid == study_instance_uid, job.c.bundle == bundle)
    return (connection.scalar(sa.select(sa.func.max(job.c.revision)).where(*same)) or 0) + 1


def add_verified_job(  # noqa: PLR0913 # a row's values, by name
    connection: Connection,
    *,
    job_id: str,
    predecessor: JobRow,
    revision: int,
    verification: Mapping[str, Any],
    summary: Mapping[str, Any],
    now: datetime,
) -> None:
    """Insert a job that is done: a person's word on the one before it."""
    row = {
        "id": job_id,
        "study_instance_uid": predecessor.study_instance_uid,
        "study_revision": predecessor.study_revision,
        "bundle": predecessor.bundle,
        "revision": revision,
        "state": State.DONE,
        "priority": predecessor.priority,
        "destinations": list(predecessor.destinations),
        "attempts": 0,
        "available_at": now,
        "reason": predecessor.reason,
        "requested_by": REQUESTED_BY,
        "algorithm": predecessor.algorithm,
        "summary": dict(summary),
        "created_at": now,
        "started_at": now,
        "finished_at": now,
        "verification": dict(verification),
    }
    connection.execute(sa.insert(job).values(**row))
    note_state(connection, job_id, State.DONE, None, now)


def cancel_deliveries(connection: Connection, job_ids: Sequence[str], now: datetime, reason: str) -> int:
    """Cancel what still waits of these jobs; what is being sent this moment is left to end."""
    is_free = sa.or_(delivery.c.lease_expires_at.is_(None), delivery.c.lease_expires_at < now)
    statement = sa.update(delivery).where(delivery.c.job_id.in_(job_ids), delivery.c.state == "waiting", is_free)
    return connection.execute(statement.values(state="cancelled", reason=reason, finished_at=now)).rowcount
