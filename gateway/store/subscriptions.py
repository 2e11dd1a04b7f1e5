"""Subscriptions to workitems (PS3.4 CC.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import State
from gateway.store.tables import job, workitem_event, workitem_subscription
from gateway.store.workitem_query import conditions, joined

_OPEN = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who wants to be told of what, and how."""

    subject: str
    """A job's id, or the well-known UID of the global or filtered subscription."""
    subscriber_ae: str
    has_deletion_lock: bool
    by_websocket: bool
    by_dimse: bool

    def to(self, job_id: str) -> Subscription:
        """Return the same to one job."""
        return replace(self, subject=job_id)


@dataclass(frozen=True, slots=True)
class Present:
    """How a job stands now."""

    job_id: str
    state: State
    reason: str | None


def add_subscription(
    connection: Connection, wanted: Subscription, now: datetime, keys: Mapping[str, str] | None = None
) -> None:
    """Subscribe; an earlier subscription to the same is replaced, and a suspended one is active again."""
    values = {**asdict(wanted), "is_subscribed": True, "suspended_at": None}
    _put(connection, {**values, "filter": dict(keys) if keys else None, "created_at": now})


def add_exception(connection: Connection, subject: str, subscriber_ae: str, now: datetime) -> None:
    """Take one job out of a subscriber's global subscription."""
    nothing = {"has_deletion_lock": False, "by_websocket": False, "by_dimse": False, "is_subscribed": False}
    of_row = {"subject": subject, "subscriber_ae": subscriber_ae, "suspended_at": None, "filter": None}
    _put(connection, {**nothing, **of_row, "created_at": now})


def drop_subscription(connection: Connection, subject: str, subscriber_ae: str) -> None:
    """End one subscription."""
    connection.execute(sa.delete(workitem_subscription).where(*_is(subject, subscriber_ae)))


def drop_subscriptions(connection: Connection, subscriber_ae: str) -> None:
    """End all of a subscriber's, and forget what it was to be told."""
    for table in (workitem_subscription, workitem_event):
        connection.execute(sa.delete(table).where(table.c.subscriber_ae == subscriber_ae))


def suspend(connection: Connection, subject: str, subscriber_ae: str, now: datetime) -> bool:
    """Let a global subscription cover nothing that is made later; False where there is none."""
    statement = sa.update(workitem_subscription).where(*_is(subject, subscriber_ae))
    return connection.execute(statement.values(suspended_at=now)).rowcount == 1


def is_subscribed(connection: Connection, subject: str, subscriber_ae: str) -> bool:
    """Say whether there is such a subscription."""
    query = sa.select(workitem_subscription.c.id).where(*_is(subject, subscriber_ae))
    return connection.scalar(query) is not None


def count_subscriptions(connection: Connection) -> int:
    """Return how many subscriptions there are."""
    return connection.scalar(sa.select(sa.func.count()).select_from(workitem_subscription)) or 0


def present_of(connection: Connection, job_id: str) -> Present:
    """Return how a job stands."""
    row = connection.execute(sa.select(job.c.id, job.c.state, job.c.reason).where(job.c.id == job_id)).one()
    return Present(row.id, State(row.state), row.reason)


def open_jobs(connection: Connection, keys: Mapping[str, str], limit: int) -> list[Present]:
    """Return the jobs that have not ended and that matching keys take, the newest first."""
    query = joined(job.c.id, job.c.state, job.c.reason).where(job.c.state.in_(_OPEN), *conditions(connection, keys))
    rows = connection.execute(query.order_by(job.c.created_at.desc(), job.c.id).limit(limit))
    return [Present(row.id, State(row.state), row.reason) for row in rows]


def _put(connection: Connection, values: Mapping[str, object]) -> None:
    same = _is(str(values["subject"]), str(values["subscriber_ae"]))
    if connection.execute(sa.update(workitem_subscription).where(*same).values(**values)).rowcount == 0:
        connection.execute(sa.insert(workitem_subscription).values(**values))


def _is(subject: str, subscriber_ae: str) -> tuple[sa.ColumnElement[bool], ...]:
    return workitem_subscription.c.subject == subject, workitem_subscription.c.subscriber_ae == subscriber_ae
