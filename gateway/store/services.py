"""Heartbeats of running roles, with their counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import upsert
from gateway.store.tables import service


@dataclass(frozen=True, slots=True)
class ServiceBeat:
    """What a running role says of itself."""

    id: str
    role: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime
    state: str
    """'ready', 'degraded' or 'draining'."""
    reason: str | None
    counters: Mapping[str, float]
    exemplars: Mapping[str, Sequence[Any]] | None = field(default=None)
    """Bucket of a histogram -> trace id, value, seconds since 1970."""


def beat(connection: Connection, service_beat: ServiceBeat) -> None:
    """Write a heartbeat."""
    row = {name: getattr(service_beat, name) for name in ServiceBeat.__slots__}
    row["counters"] = dict(service_beat.counters)
    row["exemplars"] = dict(service_beat.exemplars or {})
    upsert(connection, service, row, keys=["id"], update=["seen_at", "state", "reason", "counters", "exemplars"])


def list_services(connection: Connection, seen_since: datetime) -> list[ServiceBeat]:
    """Return the roles seen since a time, by role and start."""
    query = sa.select(service).where(service.c.seen_at >= seen_since).order_by(service.c.role, service.c.started_at)
    return [ServiceBeat(**row._mapping) for row in connection.execute(query)]


def forget(connection: Connection, service_id: str) -> None:
    """Remove the heartbeat of a role that ended in good order."""
    connection.execute(sa.delete(service).where(service.c.id == service_id))


def forget_process(connection: Connection, role: str, host: str, pid: int) -> None:
    """Remove the heartbeat of a process that another has replaced."""
    is_it = (service.c.role == role, service.c.host == host, service.c.pid == pid)
    connection.execute(sa.delete(service).where(*is_it))


def forget_before(connection: Connection, seen_before: datetime) -> int:
    """Remove heartbeats last seen before a time; return how many."""
    return connection.execute(sa.delete(service).where(service.c.seen_at < seen_before)).rowcount
