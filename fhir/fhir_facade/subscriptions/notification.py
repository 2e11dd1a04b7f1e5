"""What is told of a subscription: Bundles of type history, the status first (Subscriptions R5 Backport 1.1, R4).

Event numbers are strings: they may grow beyond 32 bits. `id-only` and `full-resource` Bundles have an entry for each
event; an entry of `id-only` names the resource and holds none.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import orjson

from fhir_facade.resource import Json, present
from fhir_facade.subscriptions.topic import extension_url
from fhir_facade.timing import instant
from gateway.store.fhir_subscriptions import Content, Event, SubscriptionRow

_CREATED, _UPDATED, _DELETED = ("POST", "201"), ("PUT", "200"), ("DELETE", "204")
Kind = Literal["handshake", "heartbeat", "event-notification", "query-status", "query-event"]


def status_parameters(
    row: SubscriptionRow, kind: Kind, events: Sequence[Event] = (), reason: str | None = None
) -> Json:
    """Return the SubscriptionStatus as Parameters (backport-subscription-status-r4).

    Parameters
    ----------
    reason
        Why it is in error or off.
    """
    parameters: list[Json] = [
        {"name": "subscription", "valueReference": {"reference": f"{row.base}/Subscription/{row.resource_id}"}},
        *([{"name": "topic", "valueCanonical": row.topic}] if row.topic else []),
        {"name": "status", "valueCode": row.status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(_counted(row, kind, events))},
        *(_event(row, event) for event in events),
        *([{"name": "error", "valueCodeableConcept": {"text": reason}}] if reason else []),
    ]
    return {
        "resourceType": "Parameters",
        "id": str(uuid.uuid4()),
        "meta": {"profile": [extension_url("backport-subscription-status-r4")]},
        "parameter": parameters,
    }


def notification(
    row: SubscriptionRow,
    kind: Kind,
    now: datetime,
    events: Sequence[Event] = (),
    bodies: Mapping[Event, bytes] | None = None,
) -> bytes:
    """Return a notification.

    Parameters
    ----------
    bodies
        Resources of the events, for `full-resource`; one that is gone is left out.
    """
    status = status_parameters(row, kind, events)
    address = f"Subscription/{row.resource_id}/$status"
    head: Json = {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "meta": {"profile": [extension_url("backport-subscription-notification-r4")]},
        "type": "history",
        "timestamp": instant(now),
    }
    first = {
        "fullUrl": f"urn:uuid:{status['id']}",
        "resource": status,
        "request": {"method": "GET", "url": address},
        "response": {"status": "200"},
    }
    told = () if row.content == "empty" else events
    entries: list[object] = [first, *(_entry(row, event, (bodies or {}).get(event)) for event in told)]
    return orjson.dumps(head | {"entry": entries})


def statuses(base: str, found: Sequence[tuple[SubscriptionRow, str | None]]) -> bytes:
    """Return the answer to `$status`: a searchset of SubscriptionStatus, with the reason where there is one."""
    entries = [
        {"fullUrl": f"urn:uuid:{status['id']}", "resource": status, "search": {"mode": "match"}}
        for status in (status_parameters(row, "query-status", (), reason) for row, reason in found)
    ]
    links = [{"relation": "self", "url": f"{base}/Subscription/$status"}]
    head: Json = {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "link": links}
    return orjson.dumps(present(head | {"entry": entries}) | {"total": len(entries)})


def _counted(row: SubscriptionRow, kind: Kind, events: Sequence[Event]) -> int:
    """Return the number of events up to the last one that this notification tells."""
    if kind == "event-notification" and events:
        return events[-1].number
    return row.told if kind in {"handshake", "heartbeat"} else row.event_count


def _event(row: SubscriptionRow, event: Event) -> Json:
    parts: list[Json] = [
        {"name": "event-number", "valueString": str(event.number)},
        {"name": "timestamp", "valueInstant": instant(event.happened_at)},
    ]
    if row.content != "empty":
        parts.append({"name": "focus", "valueReference": {"reference": _address(row, event)}})
    return {"name": "notification-event", "part": parts}


def _entry(row: SubscriptionRow, event: Event, body: bytes | None) -> Json:
    entry: Json = {"fullUrl": _address(row, event)}
    content: Content = row.content
    if content == "full-resource" and body is not None:
        entry["resource"] = orjson.Fragment(body)
    method, status = _DELETED if event.is_deleted else _CREATED if event.version == 1 else _UPDATED
    path = event.resource_type if method == "POST" else f"{event.resource_type}/{event.resource_id}"
    entry["request"] = {"method": method, "url": path}
    entry["response"] = {
        "status": status,
        "etag": f'W/"{event.version}"',
        "lastModified": instant(event.happened_at),
    }
    return entry


def _address(row: SubscriptionRow, event: Event) -> str:
    return f"{row.base}/{event.resource_type}/{event.resource_id}"
