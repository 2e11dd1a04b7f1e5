"""Workitems: jobs as Unified Procedure Steps, with what creators and external performers wrote into them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import NotFoundError
from gateway.job import Claim, Priority, State
from gateway.store import jobs
from gateway.store.jobs import JobRow
from gateway.store.outbox import add_message
from gateway.store.studies import StudyRow, lock_study
from gateway.store.tables import artefact, instance, job, outbox, series, study, workitem
from gateway.store.workitem_query import conditions, has_uid, joined, workitem_uid
from gateway.workitem.state import Content

_OWNER = "performer"
_INSTANCES = 20_000
"""Instances that one workitem names as its input at most."""


@dataclass(frozen=True, slots=True)
class WorkitemRow:
    """A job, its study, and what others wrote."""

    job: JobRow
    study: StudyRow
    uid: str
    """SOP Instance UID."""
    transaction_uid: str | None
    """Of the latest claim by an external performer."""
    label: str | None
    worklist_label: str | None
    attributes: Content
    """What creator and performer wrote, by tag."""
    updated_at: datetime | None
    requested_procedure_id: str
    """Of the imaging procedure, '' where the images name none."""

    @property
    def is_claimed_outside(self) -> bool:
        """Whether an external performer holds it now."""
        uid = self.transaction_uid
        return uid is not None and self.job.state is State.RUNNING and _is_of(self.job.lease_owner, uid)

    @property
    def claim(self) -> Claim:
        """The lease of the external performer that holds it."""
        row = self.job
        if row.lease_owner is None or row.lease_expires_at is None:
            raise ValueError("nobody holds this job")
        return Claim(
            job_id=row.id,
            study_instance_uid=row.study_instance_uid,
            study_revision=row.study_revision,
            bundle=row.bundle,
            revision=row.revision,
            priority=row.priority,
            destinations=tuple(row.destinations),
            attempt=row.attempts,
            owner=row.lease_owner,
            lease_expires_at=row.lease_expires_at,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """What a workitem's own row says."""

    sop_instance_uid: str | None = None
    transaction_uid: str | None = None
    label: str | None = None
    worklist_label: str | None = None
    attributes: Content | None = None


@dataclass(frozen=True, slots=True)
class InstanceReference:
    """An instance that a workitem takes in or put out."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


_JOB = [job.c[field.name].label(f"job_{field.name}") for field in fields(JobRow)]
_STUDY = [study.c[field.name].label(f"study_{field.name}") for field in fields(StudyRow)]
_OWN = [column.label(f"own_{column.name}") for column in workitem.c]
_REQUESTED = (
    sa.select(sa.func.max(series.c.requested_procedure_id))
    .where(series.c.study_instance_uid == job.c.study_instance_uid)
    .correlate(job)
    .scalar_subquery()
    .label("requested_procedure_id")
)
_REFERENCE = tuple(field.name for field in fields(InstanceReference))


def get_workitem(connection: Connection, uid: str) -> WorkitemRow:
    """Return a workitem; NotFoundError where there is none."""
    row = connection.execute(joined(*_JOB, *_STUDY, *_OWN, _REQUESTED).where(has_uid([uid]))).one_or_none()
    if row is None:
        raise NotFoundError(f"no workitem {uid[:64]}")
    return _workitem_row(row)


def lock_workitem(connection: Connection, uid: str) -> WorkitemRow:
    """Return a workitem that nobody else changes before the transaction ends; NotFoundError where there is none."""
    found = get_workitem(connection, uid)
    lock_study(connection, found.study.study_instance_uid)
    connection.execute(sa.select(job.c.id).where(job.c.id == found.job.id).with_for_update())
    return get_workitem(connection, uid)


def find_workitems(connection: Connection, keys: Mapping[str, str], *, limit: int, offset: int) -> list[WorkitemRow]:
    """Return the workitems that matching keys take, the newest first; ValueError and KeyError as of `conditions`."""
    query = joined(*_JOB, *_STUDY, *_OWN, _REQUESTED).where(*conditions(connection, keys))
    newest_first = (job.c.created_at.desc(), job.c.id)
    return [_workitem_row(row) for row in connection.execute(query.order_by(*newest_first).limit(limit).offset(offset))]


def write_workitem(connection: Connection, job_id: str, changes: Written, now: datetime) -> None:
    """Write what is given into a workitem's own row; None leaves a column as it is."""
    given = {field.name: getattr(changes, field.name) for field in fields(Written)}
    values = {name: value for name, value in given.items() if value is not None} | {"updated_at": now}
    changed = connection.execute(sa.update(workitem).where(workitem.c.job_id == job_id).values(**values))
    if changed.rowcount == 0:
        connection.execute(sa.insert(workitem).values(**{"attributes": {}} | values, job_id=job_id))


def schedule(connection: Connection, job_id: str, start: datetime) -> None:
    """Let a job that waits begin at this time, and its message with it."""
    waits = (job.c.id == job_id, job.c.state == State.QUEUED)
    connection.execute(sa.update(job).where(*waits).values(available_at=start))
    unpublished = (outbox.c.job_id == job_id, outbox.c.published_at.is_(None))
    connection.execute(sa.update(outbox).where(*unpublished).values(available_at=start))


def prioritise(connection: Connection, job_id: str, priority: Priority, now: datetime) -> None:
    """Give a job that waits another priority, and a message in that priority's queue."""
    changed = sa.update(job).where(job.c.id == job_id, job.c.state == State.QUEUED, job.c.priority != priority)
    if connection.execute(changed.values(priority=priority)).rowcount:
        available_at = connection.scalar(sa.select(job.c.available_at).where(job.c.id == job_id))
        add_message(connection, job_id, priority, now, available_at)


def claim_outside(
    connection: Connection, row: WorkitemRow, transaction_uid: str, now: datetime, lease_s: float
) -> Claim | None:
    """Take a job's lease for an external performer; None where one of ours or of theirs was faster.

    It is the very lease that our workers take, by the same statement: whoever holds it, nobody else runs the job.
    """
    # A back-off after a failed try is for our workers.
    waits = (job.c.id == row.job.id, job.c.state == State.QUEUED, job.c.available_at > now)
    connection.execute(sa.update(job).where(*waits).values(available_at=now))
    claimed = jobs.claim(connection, row.job.id, _owner(transaction_uid), now, lease_s)
    if claimed is not None:
        write_workitem(connection, row.job.id, Written(transaction_uid=transaction_uid), now)
    return claimed


def finish_outside(connection: Connection, row: WorkitemRow, now: datetime, objects: int) -> bool:
    """Make a job done that an external performer completed; False where the lease is lost.

    Its summary says so; a reason would say that the study was not evaluable.
    """
    text = f"performed by an external performer: {objects} result object{'' if objects == 1 else 's'} named"
    summary = {"text": text, "outcomes": [], "performed_by": "external"}
    return jobs.finish(connection, row.claim, now, algorithm=None, summary=summary, reason=None)


def renew_outside(connection: Connection, row: WorkitemRow, now: datetime, lease_s: float) -> bool:
    """Hold a claimed workitem for longer; False where the lease is lost."""
    return jobs.renew(connection, row.claim, now, lease_s)


def inputs_of(connection: Connection, row: WorkitemRow) -> list[InstanceReference]:
    """Return the instances of a workitem's study as they stand, our own results not counted."""
    ours = sa.exists().where(artefact.c.series_instance_uid == instance.c.series_instance_uid)
    query = sa.select(*(instance.c[name] for name in _REFERENCE)).where(
        instance.c.study_instance_uid == row.study.study_instance_uid,
        instance.c.is_current,
        instance.c.study_revision <= row.job.study_revision,
        ~ours,
    )
    order = (instance.c.series_instance_uid, instance.c.instance_number, instance.c.sop_instance_uid)
    rows = connection.execute(query.order_by(*order).limit(_INSTANCES))
    return [InstanceReference(**each._mapping) for each in rows]


def outputs_of(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[InstanceReference]]:
    """Return the DICOM objects that each job made, in their standard rendering."""
    query = sa.select(artefact.c.job_id, *(artefact.c[name] for name in _REFERENCE)).where(
        artefact.c.job_id.in_(job_ids), artefact.c.variant == "", artefact.c.sop_instance_uid.is_not(None)
    )
    found: dict[str, list[InstanceReference]] = {}
    for row in connection.execute(query.order_by(artefact.c.id)):
        values = {name: row._mapping[name] for name in _REFERENCE}
        found.setdefault(row.job_id, []).append(InstanceReference(**values))
    return found


def predecessor_uid(connection: Connection, row: WorkitemRow) -> str | None:
    """Return the SOP Instance UID of the workitem that this one replaces."""
    query = joined(job.c.id, workitem.c.sop_instance_uid).where(
        job.c.study_instance_uid == row.job.study_instance_uid,
        job.c.bundle == row.job.bundle,
        job.c.revision < row.job.revision,
    )
    found = connection.execute(query.order_by(job.c.revision.desc()).limit(1)).first()
    return None if found is None else found.sop_instance_uid or workitem_uid(found.id)


def is_taken(connection: Connection, uid: str) -> bool:
    """Say whether a workitem has this SOP Instance UID."""
    return connection.scalar(joined(job.c.id).where(has_uid([uid]))) is not None


def _workitem_row(row: sa.Row[Any]) -> WorkitemRow:
    values = row._mapping
    job_values = {field.name: values[f"job_{field.name}"] for field in fields(JobRow)}
    return WorkitemRow(
        job=JobRow(**job_values | {"state": State(job_values["state"])}),
        study=StudyRow(**{field.name: values[f"study_{field.name}"] for field in fields(StudyRow)}),
        uid=values["own_sop_instance_uid"] or workitem_uid(job_values["id"]),
        transaction_uid=values["own_transaction_uid"],
        label=values["own_label"],
        worklist_label=values["own_worklist_label"],
        attributes=values["own_attributes"] or {},
        updated_at=values["own_updated_at"],
        requested_procedure_id=values["requested_procedure_id"] or "",
    )


def _owner(transaction_uid: str) -> str:
    return f"{_OWNER}-{hashlib.sha256(transaction_uid.encode()).hexdigest()[:32]}"


def _is_of(lease_owner: str | None, transaction_uid: str) -> bool:
    return lease_owner is not None and lease_owner.startswith(f"{_owner(transaction_uid)}:")
