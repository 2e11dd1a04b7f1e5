"""A subscription's status, told by a new version of its resource."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.index import index_entries
from fhir_facade.resource import Json, encode, parse
from gateway.store.fhir_subscriptions import Status
from gateway.store.results import FhirVersion, write_resources
from gateway.store.tables import fhir_resource

TYPE = "Subscription"


def write_subscription(connection: Connection, content: Json, now: datetime) -> None:
    """Make this the current version."""
    version = FhirVersion(TYPE, content["id"], None, encode(content), index_entries(content, None))
    write_resources(connection, [version], now, job_id=None)


def current_subscription(connection: Connection, resource_id: str) -> Json | None:
    """Return the current version; None where there is none."""
    body = connection.scalar(_current([resource_id]))
    return None if body is None else parse(body)


def write_status(connection: Connection, resource_id: str, status: Status, reason: str | None, now: datetime) -> None:
    """Say in the resource how it stands, and why where it is in error or off."""
    content = current_subscription(connection, resource_id)
    if content is None:
        return
    changed = {name: value for name, value in content.items() if name != "error"} | {"status": status}
    write_subscription(connection, changed | ({"error": reason} if reason else {}), now)


def reasons(connection: Connection, resource_ids: Sequence[str]) -> dict[str, str]:
    """Return why subscriptions are in error or off, for those that say so."""
    found = (parse(body) for body in connection.scalars(_current(resource_ids)))
    return {content["id"]: content["error"] for content in found if "error" in content}


def _current(resource_ids: Sequence[str]) -> sa.Select[Any]:
    query = sa.select(fhir_resource.c.body).where(fhir_resource.c.type == TYPE, fhir_resource.c.is_current)
    return query.where(fhir_resource.c.resource_id.in_(resource_ids))
