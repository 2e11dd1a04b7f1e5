"""Studies as retention sees them; what holds them; their rows removed; files to be removed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import NotFoundError
from gateway.job import State
from gateway.retention.policy import Candidate
from gateway.store.engine import UtcDateTime, upsert
from gateway.store.results import delete_resource
from gateway.store.studies import carries
from gateway.store.tables import (
    artefact,
    association,
    commitment,
    delivery,
    demographic_issue,
    fhir_index,
    fhir_resource,
    instance,
    job,
    metadata,
    rejection,
    removal,
    study,
    workitem,
    workitem_event,
    workitem_subscription,
)
from gateway.store.tally import counted_of, take_off

_SHARED_TYPES = ("Patient", "Device", "AuditEvent", "Organization", "Practitioner", "Endpoint")
"""Resources that are of no one study, or outlive it."""
_VERIFICATION = "verification"
_OF_STUDY = job.c.study_instance_uid == study.c.study_instance_uid


def _held_by_jobs(*states: State) -> sa.ColumnElement[bool]:
    return sa.exists().where(_OF_STUDY, job.c.state.in_(states)).correlate(study)


def _held_by_deliveries(state: str) -> sa.ColumnElement[bool]:
    return sa.exists().where(delivery.c.job_id == job.c.id, _OF_STUDY, delivery.c.state == state).correlate(study)


def _held_by_association() -> sa.ColumnElement[bool]:
    return sa.exists().where(association.c.closed_at.is_(None), carries()).correlate(study)


def _held_by_workitem() -> sa.ColumnElement[bool]:
    claimed = sa.and_(workitem.c.transaction_uid.is_not(None), job.c.state.in_((State.QUEUED, State.RUNNING)))
    locked = sa.exists().where(
        workitem_subscription.c.subject == workitem.c.job_id, workitem_subscription.c.has_deletion_lock
    )
    return sa.exists().where(workitem.c.job_id == job.c.id, _OF_STUDY, sa.or_(claimed, locked)).correlate(study)


def _held_as_unverified() -> sa.ColumnElement[bool]:
    """Say whether the newest done result of a bundle is an algorithm's, with no person's word on it."""
    newer = job.alias()
    later = sa.exists().where(
        newer.c.study_instance_uid == job.c.study_instance_uid,
        newer.c.bundle == job.c.bundle,
        newer.c.state == State.DONE,
        newer.c.revision > job.c.revision,
    )
    done = (_OF_STUDY, job.c.state == State.DONE, job.c.requested_by != _VERIFICATION, ~later)
    return sa.exists().where(*done).correlate(study)


_BLOCKERS: dict[str, sa.ColumnElement[bool]] = {
    "held": study.c.held_at.is_not(None),
    "still receiving": study.c.state == "receiving",
    "an association brings more": _held_by_association(),
    "a job waits or runs": _held_by_jobs(State.QUEUED, State.RUNNING),
    "a job is on the dead list": _held_by_jobs(State.DEAD),
    "a delivery waits": _held_by_deliveries("waiting"),
    "a delivery failed": _held_by_deliveries("failed"),
    "a workitem is claimed or locked": _held_by_workitem(),
}
_UNVERIFIED = "results are not verified"
_COMMITMENT = "storage commitment is open"


def list_candidates(
    connection: Connection,
    *,
    keep_unverified: bool,
    uids: Collection[str] | None = None,
    after: Candidate | None = None,
    limit: int | None = None,
) -> list[Candidate]:
    """Return studies, the last received longest ago first, with their sizes and what holds them.

    Parameters
    ----------
    after
        The last one of the page before.
    """
    blockers = _BLOCKERS | ({_UNVERIFIED: _held_as_unverified()} if keep_unverified else {})
    labels = {f"b{number}": name for number, name in enumerate(blockers)}
    columns = [condition.label(label) for label, condition in zip(labels, blockers.values(), strict=True)]
    conditions: list[sa.ColumnElement[bool]] = [] if uids is None else [study.c.study_instance_uid.in_(uids)]
    if after is not None:
        place = sa.tuple_(study.c.last_received_at, study.c.study_instance_uid)
        last = (sa.literal(after.last_received_at, UtcDateTime), after.study_instance_uid)
        conditions.append(place > sa.tuple_(*last))
    query = (
        sa.select(study.c.study_instance_uid, study.c.state, study.c.last_received_at, _size().label("size"), *columns)
        .where(*conditions)
        .order_by(study.c.last_received_at, study.c.study_instance_uid)
        .limit(limit)
    )
    rows = [row._mapping for row in connection.execute(query)]
    asked = _under_commitment(connection, [row["study_instance_uid"] for row in rows])
    return [
        Candidate(
            row["study_instance_uid"],
            row["state"],
            row["last_received_at"],
            int(row["size"]),
            tuple(name for label, name in labels.items() if row[label])
            + ((_COMMITMENT,) if row["study_instance_uid"] in asked else ()),
        )
        for row in rows
    ]


def hold(connection: Connection, study_instance_uid: str, who: str, reason: str, now: datetime) -> None:
    """Keep a study whatever the rules say; NotFoundError where there is none."""
    _set_hold(connection, study_instance_uid, held_by=who[:255], hold_reason=reason, held_at=now)


def release(connection: Connection, study_instance_uid: str) -> None:
    """Hold a study no longer; NotFoundError where there is none."""
    _set_hold(connection, study_instance_uid, held_by=None, hold_reason=None, held_at=None)


def remove_rows(connection: Connection, study_instance_uid: str, now: datetime, *, keep_reports: bool) -> list[str]:
    """Remove all rows of a study, which the caller has locked, and list its files to be removed; return their paths."""
    of_study = {name: table.c.study_instance_uid == study_instance_uid for name, table in _WITH_FILES.items()}
    paths = [
        path
        for name, table in _WITH_FILES.items()
        for path in connection.scalars(sa.select(table.c.path).where(of_study[name]))
    ]
    for path in dict.fromkeys(paths):
        row = {"path": path, "created_at": now, "removed_at": None}
        upsert(connection, removal, row, keys=["path"], update=["created_at", "removed_at"])
    counted = counted_of(connection, study_instance_uid)
    jobs = sa.select(job.c.id).where(job.c.study_instance_uid == study_instance_uid)
    connection.execute(sa.delete(workitem_subscription).where(workitem_subscription.c.subject.in_(jobs)))
    connection.execute(sa.delete(workitem_event).where(workitem_event.c.job_id.in_(jobs)))
    _delete_referring(connection, study_instance_uid, jobs)
    for table in (rejection, demographic_issue):
        connection.execute(sa.delete(table).where(table.c.study_instance_uid == study_instance_uid))
    connection.execute(sa.delete(instance).where(instance.c.study_instance_uid == study_instance_uid))
    _delete_of_study(connection, study_instance_uid)
    if not keep_reports:
        _withdraw_resources(connection, study_instance_uid, now)
    connection.execute(sa.delete(study).where(study.c.study_instance_uid == study_instance_uid))
    take_off(connection, counted)
    return paths


def keep_paths(connection: Connection, paths: Sequence[str]) -> list[str]:
    """Take files off the list, for they come again; return those that stood on it: they may be gone already."""
    statement = sa.delete(removal).where(removal.c.path.in_(paths)).returning(removal.c.path)
    return list(connection.scalars(statement))


def take_removals(connection: Connection, limit: int, now: datetime) -> list[str]:
    """Return files that are to be removed before the transaction ends; those that came again are taken off the list."""
    query = sa.select(removal.c.path).where(removal.c.removed_at.is_(None)).order_by(removal.c.id).limit(limit)
    paths = list(connection.scalars(query.with_for_update(skip_locked=True)))
    named: set[str] = set()
    for table in _WITH_FILES.values():
        named.update(connection.scalars(sa.select(table.c.path).where(table.c.path.in_(paths))))
    keep_paths(connection, sorted(named))
    going = [path for path in paths if path not in named]
    connection.execute(sa.update(removal).where(removal.c.path.in_(going)).values(removed_at=now))
    return going


def forget_removals(connection: Connection, before: datetime) -> None:
    """Forget files that were removed before a time."""
    connection.execute(sa.delete(removal).where(removal.c.removed_at < before))


_WITH_FILES = {"instance": instance, "artefact": artefact}


def _size() -> sa.ColumnElement[int]:
    sums = [
        sa.select(sa.func.coalesce(sa.func.sum(table.c.size_bytes), 0))
        .where(table.c.study_instance_uid == study.c.study_instance_uid)
        .correlate(study)
        .scalar_subquery()
        for table in (instance, artefact)
    ]
    return sums[0] + sums[1]


def _under_commitment(connection: Connection, uids: Sequence[str]) -> set[str]:
    """Return the studies of which an instance stands in a request of storage commitment that is not answered."""
    waiting = connection.scalars(sa.select(commitment.c.referenced).where(commitment.c.state == "waiting"))
    asked = {sop_instance_uid for referenced in waiting for _, sop_instance_uid in referenced}
    if not asked:
        return set()
    query = sa.select(instance.c.study_instance_uid).where(
        instance.c.sop_instance_uid.in_(asked), instance.c.study_instance_uid.in_(uids)
    )
    return set(connection.scalars(query))


def _set_hold(connection: Connection, study_instance_uid: str, **values: Any) -> None:
    statement = sa.update(study).where(study.c.study_instance_uid == study_instance_uid).values(**values)
    if connection.execute(statement).rowcount == 0:
        raise NotFoundError(f"no study {study_instance_uid}")


def _delete_referring(connection: Connection, study_instance_uid: str, jobs: sa.Select[tuple[str]]) -> None:
    """Delete what refers to the study's jobs, in whatever table, then the jobs."""
    for table in reversed(metadata.sorted_tables):
        for key in table.foreign_keys:
            if key.column is job.c.id:
                connection.execute(sa.delete(table).where(key.parent.in_(jobs)))
    connection.execute(sa.delete(job).where(job.c.study_instance_uid == study_instance_uid))


def _delete_of_study(connection: Connection, study_instance_uid: str) -> None:
    """Delete what refers to the study itself, in whatever table."""
    for table in reversed(metadata.sorted_tables):
        for key in table.foreign_keys:
            if key.column is study.c.study_instance_uid:
                connection.execute(sa.delete(table).where(key.parent == study_instance_uid))


def _withdraw_resources(connection: Connection, study_instance_uid: str, now: datetime) -> None:
    """Make the study's FHIR resources gone, with their history: only that they were there stays (410)."""
    of_study = (
        fhir_resource.c.study_instance_uid == study_instance_uid,
        fhir_resource.c.type.not_in(_SHARED_TYPES),
    )
    names = connection.execute(sa.select(fhir_resource.c.type, fhir_resource.c.resource_id).where(*of_study).distinct())
    for row in sorted(names.all()):
        delete_resource(connection, row.type, row.resource_id, now)
    old = sa.select(fhir_resource.c.id).where(*of_study)
    connection.execute(sa.delete(fhir_index).where(fhir_index.c.resource_pk.in_(old)))
    connection.execute(sa.delete(fhir_resource).where(*of_study))
