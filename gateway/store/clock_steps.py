"""What waits for a moment, after the clock was set back: the moment is brought nearer.

Rows tell when something is due, or how long it is held, by the clock of the host that wrote them. Where that clock was
ahead and is put right, all of it would wait as long as the clock was ahead.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import State
from gateway.store.outbox import add_message
from gateway.store.tables import (
    association,
    commitment,
    delivery,
    fhir_poll,
    fhir_subscription,
    job,
    outbox,
    service,
    study,
    workitem_event,
)

_DUE = (
    study.c.last_received_at,
    job.c.available_at,
    outbox.c.available_at,
    outbox.c.published_at,
    delivery.c.available_at,
    commitment.c.available_at,
    workitem_event.c.available_at,
    fhir_subscription.c.available_at,
    fhir_subscription.c.heartbeat_at,
    fhir_poll.c.available_at,
    service.c.seen_at,
    association.c.opened_at,
)
_HELD = (
    job.c.lease_expires_at,
    delivery.c.lease_expires_at,
    fhir_subscription.c.lease_expires_at,
    fhir_poll.c.lease_expires_at,
)
_MARGIN = timedelta(seconds=5)


def newest_beat(connection: Connection) -> datetime | None:
    """Return the latest moment at which a role said that it runs; None where none did."""
    newest: datetime | None = connection.scalar(sa.select(sa.func.max(service.c.seen_at)))
    return newest


def pull_back(connection: Connection, now: datetime, back: timedelta) -> int:
    """Let what falls into the time that comes a second time be due now, and leases end that much earlier.

    Jobs among it get another message: a worker that had theirs too early by its clock has thrown it away. May be called
    again: what is due stays so, and a lease that lives is renewed.

    Parameters
    ----------
    now
        By the clock as it is set now.
    back
        By how much it was set back.

    Returns
    -------
    int
        Number of rows changed.
    """
    changed = 0
    is_early = (job.c.state == State.QUEUED, *_falls_into(job.c.available_at, now, back))
    early = connection.execute(sa.select(job.c.id, job.c.priority).where(*is_early)).all()
    for column in _DUE:
        statement = sa.update(column.table).where(*_falls_into(column, now, back))
        changed += connection.execute(statement.values({column.name: now})).rowcount
    for row in early:
        add_message(connection, row.id, row.priority, now)
    for column in _HELD:
        keys = list(column.table.primary_key)
        rows = connection.execute(sa.select(*keys, column).where(column > now + back)).all()
        for *values, expires_at in rows:
            is_it = [key == value for key, value in zip(keys, values, strict=True)]
            earlier = {column.name: expires_at - back}
            changed += connection.execute(
                sa.update(column.table).where(*is_it, column == expires_at).values(earlier)
            ).rowcount
    return changed


def _falls_into(
    column: sa.ColumnElement[datetime], now: datetime, back: timedelta
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of a moment that lies in the time that comes a second time."""
    return column > now, column <= now + back + _MARGIN
