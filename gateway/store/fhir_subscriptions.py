"""Subscriptions to FHIR resources: what changed, who has an event of it, what was told.

Each version, also one that says a resource is gone, writes a row of `fhir_change` in its own transaction
(`results.py`). The matcher takes those rows, whatever their numbers: transactions commit out of order, and who kept a
position among numbers would pass over the late ones. In one transaction it gives each subscriber its events, numbered
without gaps under the lock of the subscriber's row, and deletes the rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import insert_ignore
from gateway.store.tables import fhir_change, fhir_resource, fhir_subscription, fhir_subscription_event

Status = Literal["requested", "active", "error", "off"]
Content = Literal["empty", "id-only", "full-resource"]
_MATCHER_LOCK = 0x6879_6272_6964_0001
"""Of `pg_try_advisory_xact_lock`: one matcher at a time, so that versions of one resource stay in order."""
_LISTENING = ("active", "error")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for."""

    resource_type: str
    criteria: str
    """Query string; '' takes all of the type."""
    topic: str | None
    """Canonical, of the backport; None: R4's own kind."""
    endpoint: str
    headers: Sequence[Sequence[str]]
    """[name, value]."""
    content: Content
    heartbeat_s: int | None
    timeout_s: int | None
    max_count: int
    ends_at: datetime | None
    base: str
    owner: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SubscriptionRow(Wanted):
    """A subscription as it stands."""

    resource_id: str
    status: Status
    event_count: int
    told: int
    failures: int
    available_at: datetime
    heartbeat_at: datetime | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A version that was committed."""

    change_id: int
    resource_pk: int
    resource_type: str
    resource_id: str
    version: int
    happened_at: datetime
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class Event:
    """An event of one subscription."""

    number: int
    resource_type: str
    resource_id: str
    version: int
    happened_at: datetime
    is_deleted: bool = False
    """Whether the version says that the resource is gone."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A subscription held under a lease."""

    resource_id: str
    owner: str


_COLUMNS = [fhir_subscription.c[field.name] for field in fields(SubscriptionRow)]


def put_subscription(connection: Connection, resource_id: str, wanted: Wanted, status: Status, now: datetime) -> None:
    """Write what a client asked for; numbers of events go on, who holds the subscription loses it."""
    fresh = {"status": status, "failures": 0, "available_at": now, "heartbeat_at": None}
    values = {**asdict(wanted), **fresh, "lease_owner": None, "lease_expires_at": None}
    is_this = fhir_subscription.c.resource_id == resource_id
    if connection.execute(sa.update(fhir_subscription).where(is_this).values(**values)).rowcount == 0:
        begin = {"resource_id": resource_id, "event_count": 0, "told": 0, "created_at": now}
        connection.execute(sa.insert(fhir_subscription).values(**values, **begin))


def drop_subscription(connection: Connection, resource_id: str) -> None:
    """Forget a subscription and its events."""
    connection.execute(sa.delete(fhir_subscription).where(fhir_subscription.c.resource_id == resource_id))
    of_it = fhir_subscription_event.c.subscription_id == resource_id
    connection.execute(sa.delete(fhir_subscription_event).where(of_it))


def find_subscription(connection: Connection, resource_id: str) -> SubscriptionRow | None:
    """Return a subscription; None where there is none."""
    row = connection.execute(sa.select(*_COLUMNS).where(fhir_subscription.c.resource_id == resource_id)).first()
    return None if row is None else SubscriptionRow(**row._mapping)


def list_subscriptions(
    connection: Connection, *, ids: Sequence[str] = (), statuses: Sequence[str] = (), limit: int = 100
) -> list[SubscriptionRow]:
    """Return subscriptions, the oldest first."""
    query = sa.select(*_COLUMNS).order_by(fhir_subscription.c.created_at, fhir_subscription.c.resource_id)
    if ids:
        query = query.where(fhir_subscription.c.resource_id.in_(ids))
    if statuses:
        query = query.where(fhir_subscription.c.status.in_(statuses))
    return [SubscriptionRow(**row._mapping) for row in connection.execute(query.limit(limit))]


def count_subscriptions(connection: Connection) -> dict[str, int]:
    """Return status -> how many."""
    query = sa.select(fhir_subscription.c.status, sa.func.count()).group_by(fhir_subscription.c.status)
    return {row[0]: row[1] for row in connection.execute(query)}


def has_changes(connection: Connection) -> bool:
    """Say whether there is something to match; a look that takes no lock."""
    return connection.scalar(sa.select(fhir_change.c.id).limit(1)) is not None


def take_changes(connection: Connection, limit: int) -> list[Changed] | None:
    """Return the oldest changes, deleted with this transaction; None where another process matches."""
    if connection.dialect.name == "postgresql":
        query = sa.select(sa.func.pg_try_advisory_xact_lock(_MATCHER_LOCK))
        if not connection.scalar(query):
            return None
    ids = list(connection.scalars(sa.select(fhir_change.c.id).order_by(fhir_change.c.id).limit(limit)))
    query_changes = (
        sa.select(
            fhir_change.c.id.label("change_id"),
            fhir_resource.c.id.label("resource_pk"),
            fhir_resource.c.type.label("resource_type"),
            fhir_resource.c.resource_id,
            fhir_resource.c.version,
            fhir_resource.c.last_updated.label("happened_at"),
            fhir_resource.c.is_deleted,
        )
        .join(fhir_resource, fhir_resource.c.id == fhir_change.c.resource_pk)
        .where(fhir_change.c.id.in_(ids))
        .order_by(fhir_change.c.id)
    )
    found = [Changed(**row._mapping) for row in connection.execute(query_changes)]
    connection.execute(sa.delete(fhir_change).where(fhir_change.c.id.in_(ids)))
    return found


def listeners(connection: Connection, resource_types: Sequence[str]) -> list[SubscriptionRow]:
    """Return the subscriptions that get events of these types."""
    wanted = (fhir_subscription.c.status.in_(_LISTENING), fhir_subscription.c.resource_type.in_(resource_types))
    return [SubscriptionRow(**row._mapping) for row in connection.execute(sa.select(*_COLUMNS).where(*wanted))]


def add_events(connection: Connection, resource_id: str, changes: Sequence[Changed]) -> None:
    """Give a subscription an event for each change, numbered on from its last; nothing where it is gone or off."""
    listening = (fhir_subscription.c.resource_id == resource_id, fhir_subscription.c.status.in_(_LISTENING))
    counted = sa.update(fhir_subscription).where(*listening)
    counted = counted.values(event_count=fhir_subscription.c.event_count + len(changes))
    last = connection.scalar(counted.returning(fhir_subscription.c.event_count))
    if last is None:
        return
    rows = [
        {
            "subscription_id": resource_id,
            "number": last - len(changes) + at,
            "resource_type": change.resource_type,
            "resource_id": change.resource_id,
            "version": change.version,
            "happened_at": change.happened_at,
        }
        for at, change in enumerate(changes, start=1)
    ]
    insert_ignore(connection, fhir_subscription_event, rows, keys=["subscription_id", "number"])


def list_events(connection: Connection, resource_id: str, first: int, last: int, limit: int) -> list[Event]:
    """Return the events with numbers from `first` to `last`, in order."""
    number = fhir_subscription_event.c.number
    columns = [each for each in fhir_subscription_event.c if each.name != "subscription_id"]
    is_deleted = sa.exists().where(
        fhir_resource.c.type == fhir_subscription_event.c.resource_type,
        fhir_resource.c.resource_id == fhir_subscription_event.c.resource_id,
        fhir_resource.c.version == fhir_subscription_event.c.version,
        fhir_resource.c.is_deleted,
    )
    query = sa.select(*columns, is_deleted.label("is_deleted"))
    query = query.where(fhir_subscription_event.c.subscription_id == resource_id, number >= first, number <= last)
    return [Event(**row._mapping) for row in connection.execute(query.order_by(number).limit(limit))]


def event_bodies(connection: Connection, events: Sequence[Event]) -> dict[Event, bytes]:
    """Return the versions that events are about, those that are still there."""
    bodies = {}
    for event in (each for each in events if not each.is_deleted):
        query = sa.select(fhir_resource.c.body).where(
            fhir_resource.c.type == event.resource_type,
            fhir_resource.c.resource_id == event.resource_id,
            fhir_resource.c.version == event.version,
        )
        body = connection.scalar(query)
        if body is not None:
            bodies[event] = body
    return bodies


def due_subscriptions(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Return the ids of the subscriptions to which something is to be said, the longest waiting first."""
    query = sa.select(fhir_subscription.c.resource_id).where(*_is_due(now))
    return list(connection.scalars(query.order_by(fhir_subscription.c.available_at).limit(limit)))


def hold_subscription(connection: Connection, resource_id: str, now: datetime, lease_s: float) -> Hold | None:
    """Take a subscription that is due; None where another was faster."""
    owner = str(uuid.uuid4())
    lease = {"lease_owner": owner, "lease_expires_at": now + timedelta(seconds=lease_s)}
    statement = sa.update(fhir_subscription).where(fhir_subscription.c.resource_id == resource_id, *_is_due(now))
    return Hold(resource_id, owner) if connection.execute(statement.values(**lease)).rowcount else None


def update_held(connection: Connection, hold: Hold, **values: Any) -> bool:
    """Write columns of a subscription that is held; False, with nothing written, where the hold is lost."""
    is_held = (fhir_subscription.c.resource_id == hold.resource_id, fhir_subscription.c.lease_owner == hold.owner)
    return connection.execute(sa.update(fhir_subscription).where(*is_held).values(**values)).rowcount == 1


def forget_events(connection: Connection, happened_before: datetime) -> int:
    """Delete events that are old and were told, or whose subscription is off; return how many."""
    waiting = sa.exists().where(
        fhir_subscription.c.resource_id == fhir_subscription_event.c.subscription_id,
        fhir_subscription.c.status != "off",
        fhir_subscription.c.told < fhir_subscription_event.c.number,
    )
    old = sa.delete(fhir_subscription_event).where(fhir_subscription_event.c.happened_at < happened_before, ~waiting)
    return connection.execute(old).rowcount


def _is_due(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    row = fhir_subscription.c
    is_free = sa.or_(row.lease_expires_at.is_(None), row.lease_expires_at < now)
    has_news = sa.or_(row.event_count > row.told, row.heartbeat_at <= now, row.ends_at <= now)
    has_something = sa.or_(row.status == "requested", sa.and_(row.status.in_(_LISTENING), has_news))
    return has_something, row.available_at <= now, is_free
