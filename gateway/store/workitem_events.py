"""Events of workitems, for those who subscribed to them (PS3.4 CC.2.3 and CC.2.4).

A state change becomes an event in the transaction that makes it, written by the functions of `jobs.py`: so none is
lost or told in vain, whoever makes it and in whichever process, and no poller compares all jobs with what they were.
It costs the hot path one look at an index; rows are written only where somebody listens, one for each subscriber and
way to it. A row told is deleted, so nobody keeps a position among numbers that commit out of order, and what waits for
subscribers that never come is deleted by the sweeper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import State
from gateway.store.tables import job, workitem, workitem_event, workitem_subscription
from gateway.store.transitions import job_changed
from gateway.store.workitem_query import matches, workitem_uid
from gateway.workitem.state import FILTERED, GLOBAL, Content, EventType, state_report

Channel = Literal["websocket", "dimse"]
_PER_SUBSCRIBER = 10_000
"""Events kept for one subscriber on one channel; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be told."""

    id: int
    subject: str
    """SOP Instance UID of the workitem, or the well-known UID where the event is of the gateway itself."""
    subscriber_ae: str
    kind: EventType
    content: Content
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told of a workitem, and how."""

    subscriber_ae: str
    channels: tuple[Channel, ...]


def note_state(connection: Connection, job_id: str, state: State, reason: str | None, now: datetime) -> None:
    """Tell those who subscribed that a job is now in this state, and whoever else follows jobs."""
    job_changed(connection, job_id, now)
    listeners = listeners_of(connection, job_id)
    if listeners:
        write_events(connection, listeners, job_id, EventType.STATE_REPORT, state_report(state, reason), now)


def note_created(connection: Connection, job_id: str, now: datetime) -> None:
    """Subscribe those whose filter takes a new job, and tell all who are subscribed to it."""
    active = (workitem_subscription.c.subject == FILTERED, workitem_subscription.c.suspended_at.is_(None))
    for row in connection.execute(sa.select(workitem_subscription).where(*active)).all():
        if matches(connection, job_id, row.filter or {}):
            values = {**row._mapping, "subject": job_id, "filter": None, "created_at": now}
            del values["id"]
            connection.execute(sa.insert(workitem_subscription).values(**values))
    note_state(connection, job_id, State.QUEUED, None, now)


def listeners_of(connection: Connection, job_id: str) -> list[Listener]:
    """Return who is subscribed to a job: by name, or globally since before it was made and with no exception."""
    subjects = workitem_subscription.c.subject.in_((job_id, GLOBAL))
    rows = connection.execute(sa.select(workitem_subscription).where(subjects)).all()
    own = {row.subscriber_ae: row for row in rows if row.subject == job_id}
    found = [row for row in own.values() if row.is_subscribed]
    for row in rows:
        if row.subject == GLOBAL and row.subscriber_ae not in own and _covers(connection, row, job_id):
            found.append(row)
    return [Listener(row.subscriber_ae, _channels(row)) for row in found]


def _covers(connection: Connection, subscription: sa.Row[Any], job_id: str) -> bool:
    if subscription.suspended_at is None:
        return True
    created_at = connection.scalar(sa.select(job.c.created_at).where(job.c.id == job_id))
    return created_at is not None and created_at < subscription.suspended_at


def _channels(row: sa.Row[Any]) -> tuple[Channel, ...]:
    channels: list[Channel] = []
    if row.by_websocket:
        channels.append("websocket")
    if row.by_dimse:
        channels.append("dimse")
    return tuple(channels)


def write_events(  # noqa: PLR0913, PLR0917 # the columns of a row
    connection: Connection,
    listeners: Sequence[Listener],
    job_id: str | None,
    kind: EventType,
    content: Content,
    now: datetime,
) -> None:
    """Write an event for each listener and channel."""
    of_event = {"job_id": job_id, "kind": int(kind), "content": dict(content), "attempts": 0}
    times = {"available_at": now, "created_at": now}
    rows = [
        {"subscriber_ae": each.subscriber_ae, "channel": channel, **of_event, **times}
        for each in listeners
        for channel in each.channels
    ]
    if rows:
        connection.execute(sa.insert(workitem_event), rows)


def tell_everybody(connection: Connection, kind: EventType, content: Content, now: datetime) -> None:
    """Write an event of the gateway itself for every subscriber (PS3.4 CC.2.4.3, SCP Status Change)."""
    rows = connection.execute(sa.select(workitem_subscription).where(workitem_subscription.c.is_subscribed)).all()
    channels: dict[str, dict[Channel, None]] = {}
    for row in rows:
        channels.setdefault(row.subscriber_ae, {}).update(dict.fromkeys(_channels(row)))
    listeners = [Listener(ae, tuple(names)) for ae, names in channels.items()]
    write_events(connection, listeners, None, kind, content, now)


def due_subscribers(connection: Connection, channel: Channel, now: datetime) -> list[str]:
    """Return who has an event waiting on a channel, and none that is held or postponed: events stay in order."""
    waiting = sa.select(workitem_event.c.subscriber_ae).where(workitem_event.c.channel == channel)
    none_later = sa.func.max(workitem_event.c.available_at) <= now
    return list(connection.scalars(waiting.group_by(workitem_event.c.subscriber_ae).having(none_later)))


def hold_events(connection: Connection, ids: Sequence[int], now: datetime, until: datetime) -> bool:
    """Keep others from telling these events for a while; False where another was faster with one of them."""
    free = (workitem_event.c.id.in_(ids), workitem_event.c.available_at <= now)
    return connection.execute(sa.update(workitem_event).where(*free).values(available_at=until)).rowcount == len(ids)


def due_events(
    connection: Connection, channel: Channel, subscribers: Sequence[str], now: datetime, limit: int
) -> list[Event]:
    """Return the oldest events that wait for these subscribers, in the order in which they happened."""
    due = (
        workitem_event.c.channel == channel,
        workitem_event.c.subscriber_ae.in_(subscribers),
        workitem_event.c.available_at <= now,
    )
    query = (
        sa.select(workitem_event, workitem.c.sop_instance_uid)
        .outerjoin(workitem, workitem.c.job_id == workitem_event.c.job_id)
        .where(*due)
        .order_by(workitem_event.c.id)
        .limit(limit)
    )
    return [
        Event(
            id=row.id,
            subject=GLOBAL if row.job_id is None else row.sop_instance_uid or workitem_uid(row.job_id),
            subscriber_ae=row.subscriber_ae,
            kind=EventType(row.kind),
            content=row.content,
            attempts=row.attempts,
            created_at=row.created_at,
        )
        for row in connection.execute(query)
    ]


def forget_events(connection: Connection, ids: Sequence[int]) -> None:
    """Delete events that were told, or given up."""
    connection.execute(sa.delete(workitem_event).where(workitem_event.c.id.in_(ids)))


def postpone_events(connection: Connection, channel: Channel, subscriber: str, until: datetime) -> None:
    """Let all that waits for a subscriber wait longer, so that it stays in order."""
    waiting = (workitem_event.c.channel == channel, workitem_event.c.subscriber_ae == subscriber)
    values = {"attempts": workitem_event.c.attempts + 1, "available_at": until}
    connection.execute(sa.update(workitem_event).where(*waiting).values(**values))


def forget_stale_events(connection: Connection, created_before: datetime) -> int:
    """Delete what nobody came for in time or what is more than one subscriber's share; return how many."""
    told = sa.delete(workitem_event).where(workitem_event.c.created_at < created_before)
    forgotten = connection.execute(told).rowcount
    columns = (workitem_event.c.channel, workitem_event.c.subscriber_ae)
    crowded = sa.select(*columns).group_by(*columns).having(sa.func.count() > _PER_SUBSCRIBER)
    for channel, subscriber in connection.execute(crowded).all():
        own = (workitem_event.c.channel == channel, workitem_event.c.subscriber_ae == subscriber)
        query = sa.select(workitem_event.c.id).where(*own).order_by(workitem_event.c.id.desc())
        oldest_kept = connection.scalar(query.offset(_PER_SUBSCRIBER - 1).limit(1))
        surplus = sa.delete(workitem_event).where(*own, workitem_event.c.id < oldest_kept)
        forgotten += connection.execute(surplus).rowcount
    return forgotten
