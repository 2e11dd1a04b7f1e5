"""How far a hospital's FHIR server was asked: a row for each server and resource type."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.engine import insert_ignore
from gateway.store.tables import fhir_poll


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one type was asked."""

    server: str
    type: str
    since: datetime | None
    """All that was updated up to here has been taken, by the server's clock."""
    next_link: str | None
    """Where a round that was interrupted goes on."""
    began_at: datetime | None
    """That round, by the server's clock."""
    etag: str | None
    failures: int
    lease_owner: str | None


_COLUMNS = [fhir_poll.c[field.name] for field in fields(Mark)]


def hold_mark(connection: Connection, server: str, resource_type: str, now: datetime, lease_s: float) -> Mark | None:
    """Take a type whose round is due; None where it is not, or where another process asks."""
    row = {"server": server, "type": resource_type, "failures": 0, "available_at": now}
    insert_ignore(connection, fhir_poll, [row], keys=["server", "type"])
    owner = str(uuid.uuid4())
    is_free = sa.or_(fhir_poll.c.lease_expires_at.is_(None), fhir_poll.c.lease_expires_at < now)
    statement = sa.update(fhir_poll).where(*_is(server, resource_type), fhir_poll.c.available_at <= now, is_free)
    lease = {"lease_owner": owner, "lease_expires_at": now + timedelta(seconds=lease_s)}
    if connection.execute(statement.values(**lease)).rowcount == 0:
        return None
    return Mark(**connection.execute(sa.select(*_COLUMNS).where(*_is(server, resource_type))).one()._mapping)


def update_mark(connection: Connection, mark: Mark, **values: Any) -> bool:
    """Write columns of a type that is held; False, with nothing written, where the hold is lost."""
    is_held = (*_is(mark.server, mark.type), fhir_poll.c.lease_owner == mark.lease_owner)
    return connection.execute(sa.update(fhir_poll).where(*is_held).values(**values)).rowcount == 1


def release_mark(connection: Connection, mark: Mark, available_at: datetime, **values: Any) -> bool:
    """Let others hold a type again, from a time on."""
    return update_mark(connection, mark, lease_owner=None, lease_expires_at=None, available_at=available_at, **values)


def _is(server: str, resource_type: str) -> tuple[sa.ColumnElement[bool], ...]:
    return fhir_poll.c.server == server, fhir_poll.c.type == resource_type
