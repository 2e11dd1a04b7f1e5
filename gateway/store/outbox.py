"""The outbox: a row for each message that must reach the broker, written in the transaction that made it due.

A dispatcher takes due rows by moving their `available_at` a little ahead, so that two dispatchers do not publish the
same row and a row whose dispatcher died comes up again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import Priority, State
from gateway.store.tables import job, outbox


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that is due."""

    id: int
    job_id: str
    priority: Priority
    trace_context: Mapping[str, str]


def add_message(
    connection: Connection, job_id: str, priority: Priority, now: datetime, available_at: datetime | None = None
) -> None:
    """Write a message for the broker, due at once or at `available_at`."""
    row = {"job_id": job_id, "priority": priority, "available_at": available_at or now, "created_at": now}
    connection.execute(sa.insert(outbox).values(**row))


def has_due(connection: Connection, now: datetime) -> bool:
    """Return whether a message is due; cheap, for a loop that asks often."""
    query = sa.select(outbox.c.id).where(outbox.c.published_at.is_(None), outbox.c.available_at <= now).limit(1)
    return connection.scalar(query) is not None


def take_due(connection: Connection, now: datetime, limit: int, hold: timedelta) -> list[OutboxRow]:
    """Take due messages, stat first, then the oldest; they come up again after `hold` unless marked as published.

    Messages of jobs that no longer wait are marked as published without being returned.
    """
    due = (outbox.c.published_at.is_(None), outbox.c.available_at <= now)
    waits = sa.select(job.c.id).where(job.c.id == outbox.c.job_id, job.c.state == State.QUEUED).exists()
    connection.execute(sa.update(outbox).where(*due, ~waits).values(published_at=now))
    query = (
        sa.select(outbox.c.id, outbox.c.job_id, outbox.c.priority, job.c.trace_context)
        .join_from(outbox, job, job.c.id == outbox.c.job_id)
        .where(*due)
        .order_by(sa.case((outbox.c.priority == "stat", 0), else_=1), outbox.c.id)
        .limit(limit)
        .with_for_update(of=outbox, skip_locked=True)
    )
    rows = [OutboxRow(row.id, row.job_id, row.priority, row.trace_context or {}) for row in connection.execute(query)]
    ids = [row.id for row in rows]
    connection.execute(sa.update(outbox).where(outbox.c.id.in_(ids)).values(available_at=now + hold))
    return rows


def mark_published(connection: Connection, ids: Sequence[int], now: datetime) -> None:
    """Note that the broker has confirmed these messages."""
    connection.execute(sa.update(outbox).where(outbox.c.id.in_(ids)).values(published_at=now))


def release_messages(connection: Connection, ids: Sequence[int], available_at: datetime) -> None:
    """Put back messages that were taken but not confirmed."""
    unpublished = outbox.c.published_at.is_(None)
    connection.execute(sa.update(outbox).where(outbox.c.id.in_(ids), unpublished).values(available_at=available_at))


def forget_published(connection: Connection, published_before: datetime) -> int:
    """Delete messages published before a time; return how many."""
    return connection.execute(sa.delete(outbox).where(outbox.c.published_at < published_before)).rowcount
