"""Clients registered for SMART Backend Services, and the assertions that they have shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.errors import ConflictError, NotFoundError
from gateway.store.access import revoke_of_client
from gateway.store.engine import insert_ignore
from gateway.store.tables import smart_client, used_assertion


@dataclass(frozen=True, slots=True)
class SmartClient:
    """A program that proves itself by its key."""

    id: str
    """client_id: chosen by us, and given to the program."""
    name: str
    scopes: Sequence[str]
    """The most that it is given."""
    patient: str | None
    """FHIR id of the Patient to whose compartment it is bound."""
    jwks: Mapping[str, Any] | None
    """Its public keys (RFC 7517), or"""
    jwks_url: str | None
    """where they are."""
    created_at: datetime
    revoked_at: datetime | None = None


def add_client(connection: Connection, client: SmartClient) -> None:
    """Register a client; ConflictError where there is one of this id."""
    values = {name: getattr(client, name) for name in SmartClient.__dataclass_fields__}
    if not insert_ignore(connection, smart_client, [values | {"scopes": list(client.scopes)}], keys=["id"]):
        raise ConflictError(f"there is a client {client.id}")


def find_client(connection: Connection, client_id: str) -> SmartClient | None:
    """Return a client that is registered; None where it is not, or not any more."""
    those = (smart_client.c.id == client_id, smart_client.c.revoked_at.is_(None))
    row = connection.execute(sa.select(smart_client).where(*those)).first()
    return None if row is None else SmartClient(**row._mapping)


def list_clients(connection: Connection) -> list[SmartClient]:
    """Return all clients, those revoked too, by id."""
    return [SmartClient(**row._mapping) for row in connection.execute(sa.select(smart_client).order_by("id"))]


def revoke_client(connection: Connection, client_id: str, now: datetime) -> None:
    """End a client and its tokens; NotFoundError where none of this id is registered."""
    query = sa.update(smart_client).where(smart_client.c.id == client_id, smart_client.c.revoked_at.is_(None))
    if not connection.execute(query.values(revoked_at=now)).rowcount:
        raise NotFoundError(f"no client {client_id} is registered")
    revoke_of_client(connection, client_id, now)


def is_first_use(connection: Connection, client_id: str, jti: str, expires_at: datetime, now: datetime) -> bool:
    """Keep an assertion's `jti`, and say whether no process has seen it; those that are over are forgotten."""
    connection.execute(sa.delete(used_assertion).where(used_assertion.c.expires_at < now))
    digest = hashlib.sha256(jti.encode()).hexdigest()
    row = {"client_id": client_id, "jti_digest": digest, "expires_at": expires_at}
    return insert_ignore(connection, used_assertion, [row], keys=["client_id", "jti_digest"]) == 1
