"""Jobs: made, claimed under a lease, finished, retried, given up.

Three rules hold at every moment, whoever acts: of the jobs of one study and bundle at most one runs; only the newest
of them can be claimed, an older one before it whose objects are out (`released`) and which must be brought to its end;
a job that waits has a message in the outbox or in the broker, or gets one by `requeue_stale`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import ConflictError, NotFoundError
from gateway.job import Claim, Priority, State, require_transition
from gateway.store.outbox import add_message
from gateway.store.released import has_released, is_released
from gateway.store.studies import lock_study
from gateway.store.tables import job, outbox
from gateway.store.workitem_events import note_created, note_state
from gateway.tracing import root_context

_OWNER_LENGTH = 51
_CLOCK_GRACE = timedelta(seconds=5)
"""How much earlier than due a job may be claimed: the clock of the dispatcher's host may be ahead of the worker's."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job; the fields are those of the table."""

    id: str
    study_instance_uid: str
    study_revision: int
    bundle: str
    revision: int
    """Of the results of this study and bundle, from 1."""
    state: State
    priority: Priority
    destinations: Sequence[str]
    attempts: int
    available_at: datetime
    lease_owner: str | None
    lease_expires_at: datetime | None
    reason: str | None
    requested_by: str
    algorithm: Mapping[str, Any] | None
    summary: Any
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    trace_context: Mapping[str, str] | None
    verification: Mapping[str, Any] | None = None
    """A person's word on the revision before (`gateway.verification.verdict`)."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; conditions left out hold for all."""

    states: tuple[State, ...] = ()
    study_instance_uid: str | None = None
    bundle: str | None = None
    created_since: datetime | None = None


def create_job(  # noqa: PLR0913 # a row's values, all by name
    connection: Connection,
    *,
    study_instance_uid: str,
    study_revision: int,
    bundle: str,
    priority: Priority,
    destinations: Sequence[str],
    requested_by: Literal["dispatch", "reprocess", "workitem"],
    now: datetime,
    trace_context: Mapping[str, str] | None = None,
) -> str:
    """Make a job with its message in the outbox; older jobs of the same study and bundle that wait are cancelled.

    Returns
    -------
    str
        The job's id. It is `stat` also where a job that it replaces was.

    Raises
    ------
    NotFoundError
        There is no such study.
    """
    if not lock_study(connection, study_instance_uid):
        raise NotFoundError(f"no study {study_instance_uid}")
    same = (job.c.study_instance_uid == study_instance_uid, job.c.bundle == bundle)
    revision = (connection.scalar(sa.select(sa.func.max(job.c.revision)).where(*same)) or 0) + 1
    replaced = sa.select(job.c.id, job.c.priority).where(*same, job.c.state == State.QUEUED, ~has_released(job))
    waiting = connection.execute(replaced.with_for_update()).all()
    priority = "stat" if any(row.priority == "stat" for row in waiting) else priority
    superseded = {"state": State.CANCELLED, "reason": f"superseded by revision {revision}", "finished_at": now}
    ids = [row.id for row in waiting]
    connection.execute(sa.update(job).where(job.c.id.in_(ids), job.c.state == State.QUEUED).values(**superseded))
    job_id = str(uuid.uuid4())
    row = {
        "id": job_id,
        "study_instance_uid": study_instance_uid,
        "study_revision": study_revision,
        "bundle": bundle,
        "revision": revision,
        "state": State.QUEUED,
        "priority": priority,
        "destinations": list(destinations),
        "attempts": 0,
        "available_at": now,
        "requested_by": requested_by,
        "created_at": now,
    }
    row["trace_context"] = dict(trace_context or root_context(job_id))
    connection.execute(sa.insert(job).values(**row))
    add_message(connection, job_id, priority, now)
    for each in ids:
        note_state(connection, each, State.CANCELLED, str(superseded["reason"]), now)
    if requested_by != "workitem":  # whose creator tells of it once all is written
        note_created(connection, job_id, now)
    return job_id


def next_candidates(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Return the jobs that can be claimed, stat first, then the oldest."""
    order = (sa.case((job.c.priority == "stat", 0), else_=1), job.c.created_at, job.c.id)
    return list(connection.scalars(sa.select(job.c.id).where(*_is_claimable(now)).order_by(*order).limit(limit)))


def count_claimable(connection: Connection, now: datetime) -> int:
    """Return how many jobs can be claimed."""
    return connection.scalar(sa.select(sa.func.count()).select_from(job).where(*_is_claimable(now))) or 0


def claim(connection: Connection, job_id: str, owner: str, now: datetime, lease_s: float) -> Claim | None:
    """Take a job that waits; None where there is nothing to do for it now: then forget the message.

    Parameters
    ----------
    owner, lease_s
        Who asks (the claim's own `owner` adds what makes it unique), and how long it is held without `renew`.
    """
    values = {
        "state": State.RUNNING,
        "attempts": job.c.attempts + 1,
        "lease_owner": f"{owner[:_OWNER_LENGTH]}:{uuid.uuid4().hex[:12]}",
        "lease_expires_at": now + timedelta(seconds=lease_s),
        "started_at": now,
        "reason": None,
    }
    claimable = _is_claimable(now + _CLOCK_GRACE)
    claimed = connection.execute(sa.update(job).where(job.c.id == job_id, *claimable).values(**values))
    if claimed.rowcount == 0:
        return None
    note_state(connection, job_id, State.RUNNING, None, now)
    row = connection.execute(sa.select(job).where(job.c.id == job_id)).one()
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
        device_losses=row.device_losses,
    )


def renew(connection: Connection, claimed: Claim, now: datetime, lease_s: float) -> bool:
    """Hold a job for longer; False: the lease is lost, drop what was made."""
    statement = sa.update(job).where(*_is_held(claimed)).values(lease_expires_at=now + timedelta(seconds=lease_s))
    return connection.execute(statement).rowcount == 1


def hold(connection: Connection, claimed: Claim) -> bool:
    """Let nobody else change a job for the rest of the transaction; False where the lease is lost."""
    # The study first: a job made meanwhile is then either seen by `_wake_next` or sees this one ended.
    lock_study(connection, claimed.study_instance_uid)
    return connection.scalar(sa.select(job.c.id).where(*_is_held(claimed)).with_for_update()) is not None


def finish(  # noqa: PLR0913 # a row's values, by name
    connection: Connection,
    claimed: Claim,
    now: datetime,
    *,
    algorithm: Mapping[str, Any] | None,
    summary: Any,
    reason: str | None,
) -> bool:
    """Mark a job as done, in the transaction that commits its results; False where the lease is lost: roll back."""
    values = {"state": State.DONE, "reason": reason, "algorithm": algorithm, "summary": summary}
    return _end(connection, claimed, now, values)


def kill(connection: Connection, claimed: Claim, now: datetime, reason: str) -> bool:
    """Give a job up, with the reason; False where the lease is lost."""
    return _end(connection, claimed, now, {"state": State.DEAD, "reason": reason})


def release_for_retry(connection: Connection, claimed: Claim, now: datetime, reason: str, delay: timedelta) -> bool:
    """Let a job wait for its next try, after `delay`; False where the lease is lost."""
    if not hold(connection, claimed):
        return False
    _put_back(connection, claimed.job_id, reason, now, now + delay)
    return True


def requeue_expired(connection: Connection, now: datetime, max_attempts: int) -> int:
    """Take jobs from workers that let their lease run out: queued again, or dead after the last try.

    Returns
    -------
    int
        How many jobs were taken.
    """
    is_expired = (job.c.state == State.RUNNING, job.c.lease_expires_at < now)
    columns = (job.c.id, job.c.study_instance_uid, job.c.bundle, job.c.attempts)
    taken = 0
    for row in connection.execute(sa.select(*columns).where(*is_expired)).all():
        # A study that another transaction holds is left for the next sweep: waiting for several could deadlock.
        if not lock_study(connection, row.study_instance_uid, skip_locked=True):
            continue
        if connection.scalar(sa.select(job.c.id).where(job.c.id == row.id, *is_expired).with_for_update()) is None:
            continue
        taken += 1
        if row.attempts < max_attempts:
            _put_back(connection, row.id, f"worker died on try {row.attempts}", now, now)
            continue
        reason = f"worker died on try {row.attempts} of {max_attempts}"
        _close(connection, row.id, now, {"state": State.DEAD, "reason": reason})
        _wake_next(connection, row.study_instance_uid, row.bundle, now)
    return taken


def requeue_stale(connection: Connection, now: datetime, older_than: timedelta) -> int:
    """Write messages for jobs that wait though theirs was published longer ago than `older_than`, or is gone.

    Returns
    -------
    int
        How many messages were written.
    """
    stale = connection.execute(sa.select(job.c.id, job.c.priority).where(*_is_stale(now, older_than))).all()
    for row in stale:
        add_message(connection, row.id, row.priority, now)
    return len(stale)


def count_stale(connection: Connection, now: datetime, older_than: timedelta) -> int:
    """Return how many messages `requeue_stale` would write."""
    return connection.scalar(sa.select(sa.func.count()).select_from(job).where(*_is_stale(now, older_than))) or 0


def get_job(connection: Connection, job_id: str) -> JobRow:
    """Return a job; NotFoundError where there is none."""
    row = connection.execute(sa.select(job).where(job.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"no job {job_id}")
    return _job_row(row)


def list_jobs(
    connection: Connection, which: JobFilter | None = None, *, limit: int = 100, offset: int = 0
) -> list[JobRow]:
    """Return jobs, the newest first."""
    which = which or JobFilter()
    conditions: list[sa.ColumnElement[bool]] = []
    if which.states:
        conditions.append(job.c.state.in_(which.states))
    if which.study_instance_uid is not None:
        conditions.append(job.c.study_instance_uid == which.study_instance_uid)
    if which.bundle is not None:
        conditions.append(job.c.bundle == which.bundle)
    if which.created_since is not None:
        conditions.append(job.c.created_at >= which.created_since)
    newest_first = (job.c.created_at.desc(), job.c.revision.desc(), job.c.id)
    rows = connection.execute(sa.select(job).where(*conditions).order_by(*newest_first).limit(limit).offset(offset))
    return [_job_row(row) for row in rows]


def list_dead(connection: Connection, *, limit: int = 100, offset: int = 0) -> list[JobRow]:
    """Return the jobs given up, the newest first."""
    return list_jobs(connection, JobFilter(states=(State.DEAD,)), limit=limit, offset=offset)


def cancel(connection: Connection, job_id: str, now: datetime, reason: str = "cancelled by request") -> None:
    """Cancel a job, running or not; NotFoundError, or ConflictError where it has ended or its objects are out."""
    row = _lock_job(connection, job_id)
    require_transition(row.id, row.state, State.CANCELLED)
    if row.state is not State.DEAD and is_released(connection, job_id):
        raise ConflictError(f"job {job_id} is {row.state} and its results are out: it cannot become cancelled")
    _close(connection, job_id, now, {"state": State.CANCELLED, "reason": reason})
    _wake_next(connection, row.study_instance_uid, row.bundle, now)


def retry_dead(connection: Connection, job_id: str, now: datetime) -> None:
    """Queue a dead job again with all its tries; NotFoundError, or ConflictError where it is not dead or replaced."""
    row = _lock_job(connection, job_id)
    if row.state is not State.DEAD:
        raise ConflictError(f"job {job_id} is {row.state}, not dead")
    if connection.scalar(sa.select(_is_replaced(job_id))):
        raise ConflictError(f"job {job_id} is replaced by a newer one of its study and bundle: use reprocess")
    values = {"state": State.QUEUED, "attempts": 0, "device_losses": 0, "available_at": now, "finished_at": None}
    connection.execute(sa.update(job).where(job.c.id == job_id).values(**values))
    note_state(connection, job_id, State.QUEUED, None, now)
    add_message(connection, job_id, row.priority, now)


def _job_row(row: sa.Row[Any]) -> JobRow:
    values = {field.name: getattr(row, field.name) for field in fields(JobRow)}
    return JobRow(**values | {"state": State(row.state)})


def _lock_job(connection: Connection, job_id: str) -> JobRow:
    """Hold the study, then the job: the order in which every transaction takes them."""
    lock_study(connection, get_job(connection, job_id).study_instance_uid)
    connection.execute(sa.select(job.c.id).where(job.c.id == job_id).with_for_update())
    return get_job(connection, job_id)


def _is_claimable(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    older = job.alias()
    has_older_under_way = sa.exists().where(
        older.c.study_instance_uid == job.c.study_instance_uid,
        older.c.bundle == job.c.bundle,
        older.c.revision < job.c.revision,
        sa.or_(older.c.state == State.RUNNING, sa.and_(older.c.state == State.QUEUED, has_released(older))),
    )
    return job.c.state == State.QUEUED, job.c.available_at <= now, ~has_older_under_way


def _is_held(claimed: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return job.c.id == claimed.job_id, job.c.state == State.RUNNING, job.c.lease_owner == claimed.owner


def _is_replaced(job_id: str) -> sa.ColumnElement[bool]:
    one, newer = job.alias(), job.alias()
    return sa.exists().where(
        one.c.id == job_id,
        newer.c.study_instance_uid == one.c.study_instance_uid,
        newer.c.bundle == one.c.bundle,
        newer.c.revision > one.c.revision,
        newer.c.state != State.CANCELLED,
    )


def _is_stale(now: datetime, older_than: timedelta) -> tuple[sa.ColumnElement[bool], ...]:
    fresh = sa.exists().where(
        outbox.c.job_id == job.c.id,
        sa.or_(outbox.c.published_at.is_(None), outbox.c.published_at > now - older_than),
    )
    return *_is_claimable(now), ~fresh


def _end(connection: Connection, claimed: Claim, now: datetime, values: Mapping[str, Any]) -> bool:
    if not hold(connection, claimed):
        return False
    _close(connection, claimed.job_id, now, values)
    _wake_next(connection, claimed.study_instance_uid, claimed.bundle, now)
    return True


def _close(connection: Connection, job_id: str, now: datetime, values: Mapping[str, Any]) -> None:
    ended = {"finished_at": now, "lease_owner": None, "lease_expires_at": None}
    connection.execute(sa.update(job).where(job.c.id == job_id).values(**ended, **values))
    note_state(connection, job_id, values["state"], values.get("reason"), now)


def _put_back(connection: Connection, job_id: str, reason: str, now: datetime, available_at: datetime) -> None:
    """Queue a running job again, or cancel it where a newer one of its study and bundle stands and nothing is out."""
    row = get_job(connection, job_id)
    if connection.scalar(sa.select(_is_replaced(job_id))) and not is_released(connection, job_id):
        _close(connection, job_id, now, {"state": State.CANCELLED, "reason": f"superseded; {reason}"})
        _wake_next(connection, row.study_instance_uid, row.bundle, now)
        return
    values = {"state": State.QUEUED, "reason": reason, "available_at": available_at}
    free = {"lease_owner": None, "lease_expires_at": None}
    connection.execute(sa.update(job).where(job.c.id == job_id).values(**values, **free))
    note_state(connection, job_id, State.QUEUED, None, now)
    add_message(connection, job_id, row.priority, now, available_at)


def _wake_next(connection: Connection, study_instance_uid: str, bundle: str, now: datetime) -> None:
    """Write a message for the job that could not be claimed while the one that just ended ran."""
    unpublished = sa.exists().where(outbox.c.job_id == job.c.id, outbox.c.published_at.is_(None))
    waits = (job.c.study_instance_uid == study_instance_uid, job.c.bundle == bundle, job.c.state == State.QUEUED)
    for row in connection.execute(sa.select(job.c.id, job.c.priority).where(*waits, ~unpublished)).all():
        add_message(connection, row.id, row.priority, now)
