"""Deliveries: a row for each job and destination, claimed under a lease by one deliverer at a time.

A destination that is away holds its rows back without counting a try; only an answer that refuses counts.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import ConflictError, NotFoundError
from gateway.job import State
from gateway.store.engine import insert_ignore
from gateway.store.tables import artefact, delivery, job

DeliveryState = Literal["waiting", "done", "failed", "cancelled"]
_VERIFICATION = "verification"
"""`requested_by` of a person's word on a result."""


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery held under a lease."""

    id: int
    job_id: str
    destination: str
    attempts: int
    """Answers that refused, before this try."""
    owner: str


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery, with what it belongs to."""

    id: int
    job_id: str
    study_instance_uid: str
    bundle: str
    revision: int
    destination: str
    state: DeliveryState
    attempts: int
    available_at: datetime
    reason: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; conditions left out hold for all."""

    states: tuple[DeliveryState, ...] = ()
    destination: str | None = None
    job_id: str | None = None
    study_instance_uid: str | None = None


_OF_JOB = ("study_instance_uid", "bundle", "revision")
_COLUMNS = [
    (job if field.name in _OF_JOB else delivery).c[field.name].label(field.name) for field in fields(DeliveryRow)
]


def create_deliveries(connection: Connection, job_id: str, destinations: Sequence[str], now: datetime) -> None:
    """Make a waiting delivery for each destination."""
    rows = [
        {
            "job_id": job_id,
            "destination": name,
            "state": "waiting",
            "attempts": 0,
            "available_at": now,
            "created_at": now,
        }
        for name in dict.fromkeys(destinations)
    ]
    insert_ignore(connection, delivery, rows, keys=["job_id", "destination"])


def has_due(connection: Connection, destination: str, now: datetime) -> bool:
    """Say whether `claim` would find a delivery; a look that takes no lock."""
    query = sa.select(delivery.c.id).where(delivery.c.destination == destination, *_is_due(now))
    return connection.scalar(query.limit(1)) is not None


def claim(connection: Connection, destination: str, now: datetime, lease_s: float) -> DeliveryClaim | None:
    """Take the oldest delivery of a destination that is due; those of results that were replaced are cancelled.

    Of one study and bundle one is held at a time, whatever the number of processes: what was read before a person's
    word must not arrive after it.
    """
    _cancel_replaced(connection, destination, now)
    query = sa.select(delivery.c.id).where(
        delivery.c.destination == destination, *_is_due(now), ~_has_other_underway(destination, now)
    )
    row_id = connection.scalar(query.order_by(delivery.c.available_at, delivery.c.id).limit(1))
    if row_id is None:
        return None
    owner = str(uuid.uuid4())
    lease = {"lease_owner": owner, "lease_expires_at": now + timedelta(seconds=lease_s)}
    # The condition stands again: another process may have taken it since.
    taken = connection.execute(sa.update(delivery).where(delivery.c.id == row_id, *_is_due(now)).values(**lease))
    if taken.rowcount == 0:
        return None
    row = connection.execute(sa.select(delivery).where(delivery.c.id == row_id)).one()
    return DeliveryClaim(row.id, row.job_id, row.destination, row.attempts, owner)


def renew(connection: Connection, claimed: DeliveryClaim, now: datetime, lease_s: float) -> bool:
    """Hold a delivery for longer; False: the lease is lost."""
    return _update(connection, claimed, lease_expires_at=now + timedelta(seconds=lease_s))


def finish(connection: Connection, claimed: DeliveryClaim, now: datetime, note: str | None = None) -> bool:
    """Mark a delivery as done; False where the lease is lost: the objects are then sent again, harmlessly."""
    return _end(connection, claimed, now, "done", note)


def fail(connection: Connection, claimed: DeliveryClaim, now: datetime, reason: str) -> bool:
    """Give a delivery up, with the reason."""
    return _end(connection, claimed, now, "failed", reason)


def refuse(connection: Connection, claimed: DeliveryClaim, now: datetime, reason: str, delay: timedelta) -> bool:
    """Let a delivery that was refused wait for its next try; counts."""
    values = {"attempts": claimed.attempts + 1, "reason": reason, "available_at": now + delay}
    return _update(connection, claimed, lease_owner=None, lease_expires_at=None, **values)


def put_back(connection: Connection, claimed: DeliveryClaim, now: datetime, reason: str) -> bool:
    """Let a delivery whose destination is away wait, without counting; the deliverer waits for the destination.

    It goes behind the others: one object that makes a peer abort must not hold up all that come after it.
    """
    return _update(connection, claimed, lease_owner=None, lease_expires_at=None, available_at=now, reason=reason)


def fail_unknown(connection: Connection, known: Sequence[str], now: datetime) -> int:
    """Fail the deliveries to destinations that are not configured; return how many."""
    statement = sa.update(delivery).where(delivery.c.state == "waiting", delivery.c.destination.not_in(known))
    values = {"state": "failed", "reason": "no such destination is configured", "finished_at": now}
    return connection.execute(statement.values(**values)).rowcount


def list_deliveries(
    connection: Connection, which: DeliveryFilter | None = None, *, limit: int = 100, offset: int = 0
) -> list[DeliveryRow]:
    """Return deliveries, the newest first."""
    query = sa.select(*_COLUMNS).join_from(delivery, job, delivery.c.job_id == job.c.id)
    query = query.where(*_conditions(which or DeliveryFilter()))
    rows = connection.execute(query.order_by(delivery.c.id.desc()).limit(limit).offset(offset))
    return [DeliveryRow(**row._mapping) for row in rows]


def retry_failed(connection: Connection, now: datetime, ids: Sequence[int] | None = None) -> int:
    """Let failed deliveries be tried again, all or those named; return how many.

    Raises
    ------
    NotFoundError
        A named delivery does not exist.
    ConflictError
        A named delivery is not failed.
    """
    if ids is not None:
        _require_failed(connection, ids)
    statement = sa.update(delivery).where(delivery.c.state == "failed")
    if ids is not None:
        statement = statement.where(delivery.c.id.in_(ids))
    values = {"state": "waiting", "attempts": 0, "available_at": now, "finished_at": None, "reason": None}
    return connection.execute(statement.values(**values)).rowcount


def resend(connection: Connection, job_ids: Sequence[str], now: datetime, destination: str | None = None) -> int:
    """Let the deliveries of these jobs, to one destination or all, be made again, those done too; return how many.

    The objects are the same: a destination that has them takes them again without harm. What waits already, or was
    cancelled for a newer result, is left as it is. The oldest job's go first.
    """
    ended = (delivery.c.job_id.in_(job_ids), delivery.c.state.in_(("done", "failed")))
    statement = sa.update(delivery).where(*ended)
    if destination is not None:
        statement = statement.where(delivery.c.destination == destination)
    values = {"state": "waiting", "attempts": 0, "available_at": now, "finished_at": None, "reason": None}
    return connection.execute(statement.values(**values)).rowcount


def _require_failed(connection: Connection, ids: Sequence[int]) -> None:
    query = sa.select(delivery.c.id, delivery.c.state).where(delivery.c.id.in_(ids))
    states = {row.id: row.state for row in connection.execute(query)}
    for row_id in ids:
        if row_id not in states:
            raise NotFoundError(f"no delivery {row_id}")
        if states[row_id] != "failed":
            raise ConflictError(f"delivery {row_id} is {states[row_id]}, not failed")


def _cancel_replaced(connection: Connection, destination: str, now: datetime) -> None:
    """Cancel what waits though a newer revision is done and goes to the same destination, or a person rejected it.

    A verified revision replaces nothing: its reports refer to the segmentation and the reports of the one before, which
    goes first. A rejection note is never cancelled: what it withdraws may have been sent long ago. A verification
    cancels by itself what waits of the result that it rejects; here comes what was being sent at that moment and
    failed, and what is tried again later.
    """
    reasons = {
        "replaced by a newer revision before it was sent": _is_replaced(destination),
        "rejected before it was sent": _is_rejected(),
    }
    for reason, condition in reasons.items():
        query = sa.update(delivery).where(delivery.c.destination == destination, *_is_due(now), condition)
        connection.execute(query.values(state="cancelled", reason=reason, finished_at=now))


def _is_replaced(destination: str) -> sa.ColumnElement[bool]:
    old, new, other = job.alias(), job.alias(), delivery.alias()
    has_note = sa.exists().where(artefact.c.job_id == delivery.c.job_id, artefact.c.kind.startswith("note-"))
    newer = sa.exists().where(
        old.c.id == delivery.c.job_id,
        *_is_newer_done(old, new),
        new.c.requested_by != _VERIFICATION,
        other.c.job_id == new.c.id,
        other.c.destination == destination,
    )
    return sa.and_(newer, ~has_note)


def _is_rejected() -> sa.ColumnElement[bool]:
    """Say whether a person rejected the result that the delivery is of: no other one of an algorithm lies between."""
    old, new, between = job.alias(), job.alias(), job.alias()
    has_other = (
        sa.exists()
        .where(*_is_newer_done(old, between), between.c.revision < new.c.revision)
        .where(between.c.requested_by != _VERIFICATION)
        .correlate(old, new)
    )
    return sa.exists().where(
        old.c.id == delivery.c.job_id,
        *_is_newer_done(old, new),
        new.c.requested_by == _VERIFICATION,
        new.c.verification["action"].as_string() == "reject",
        ~has_other,
    )


def _is_newer_done(old: sa.FromClause, new: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
    same = (new.c.study_instance_uid == old.c.study_instance_uid, new.c.bundle == old.c.bundle)
    return *same, new.c.revision > old.c.revision, new.c.state == State.DONE


def _has_other_underway(destination: str, now: datetime) -> sa.ColumnElement[bool]:
    """Say whether another result of the same study and bundle is being sent to the destination."""
    own, others, other = job.alias(), job.alias(), delivery.alias()
    return sa.exists().where(
        other.c.destination == destination,
        other.c.id != delivery.c.id,
        other.c.state == "waiting",
        other.c.lease_expires_at >= now,
        others.c.id == other.c.job_id,
        own.c.id == delivery.c.job_id,
        own.c.study_instance_uid == others.c.study_instance_uid,
        own.c.bundle == others.c.bundle,
    )


def _is_due(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    is_free = sa.or_(delivery.c.lease_expires_at.is_(None), delivery.c.lease_expires_at < now)
    return delivery.c.state == "waiting", delivery.c.available_at <= now, is_free


def _end(
    connection: Connection, claimed: DeliveryClaim, now: datetime, state: DeliveryState, reason: str | None
) -> bool:
    values = {"state": state, "reason": reason, "finished_at": now, "attempts": claimed.attempts + 1}
    return _update(connection, claimed, lease_owner=None, lease_expires_at=None, **values)


def _update(connection: Connection, claimed: DeliveryClaim, **values: Any) -> bool:
    is_held = (delivery.c.id == claimed.id, delivery.c.state == "waiting", delivery.c.lease_owner == claimed.owner)
    return connection.execute(sa.update(delivery).where(*is_held).values(**values)).rowcount == 1


def _conditions(which: DeliveryFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if which.states:
        conditions.append(delivery.c.state.in_(which.states))
    if which.destination is not None:
        conditions.append(delivery.c.destination == which.destination)
    if which.job_id is not None:
        conditions.append(delivery.c.job_id == which.job_id)
    if which.study_instance_uid is not None:
        conditions.append(job.c.study_instance_uid == which.study_instance_uid)
    return conditions
