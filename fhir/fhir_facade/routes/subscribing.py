"""`POST /Subscription`, `PUT` and `DELETE /Subscription/{id}`, and the operations `$status` and `$events`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import answer, negotiate
from fhir_facade.matching import Clock
from fhir_facade.outcome import FhirError, InvalidError, TooCostlyError, UnknownResourceError
from fhir_facade.permit import NotPermittedError, Permit
from fhir_facade.refusal import BrokenError, NotAllowedError, VersionConflictError
from fhir_facade.request import base_address, query_pairs
from fhir_facade.resource import Json
from fhir_facade.server import FhirServer
from fhir_facade.subscriptions.matcher import met
from fhir_facade.subscriptions.notification import notification, statuses
from fhir_facade.subscriptions.request import Subscriber, kept_resource, read_subscription
from fhir_facade.subscriptions.standing import TYPE, reasons, write_subscription
from fhir_facade.written import expected_version, read_resource, written_response
from gateway.store.fhir_subscriptions import (
    SubscriptionRow,
    Wanted,
    count_subscriptions,
    drop_subscription,
    event_bodies,
    find_subscription,
    list_events,
    list_subscriptions,
    put_subscription,
)
from gateway.store.results import delete_resource, lock_resources
from gateway.store.tables import fhir_resource
from gateway.web.caller import caller_of

_MOST_EVENTS = 1000
_MOST_STATUSES = 1000
_LAST = 2**62
_CONTENTS = ("empty", "id-only", "full-resource")


@dataclass(frozen=True, slots=True)
class _Subscribing:
    server: FhirServer

    async def create(self, request: Request) -> Response:
        """Answer 201; the status says `requested` until the endpoint took the handshake."""
        content = await read_resource(request, TYPE)
        return await run_in_threadpool(self._put, request, str(uuid.uuid4()), content, is_new=True)

    async def update(self, request: Request) -> Response:
        """Change a subscription, or switch it off or on again; it is opened anew."""
        content = await read_resource(request, TYPE)
        resource_id = request.path_params["id"]
        if content.get("id") != resource_id:
            raise InvalidError("the id in the body is not that in the address")
        return await run_in_threadpool(self._put, request, resource_id, content, is_new=False)

    def delete(self, request: Request) -> Response:
        """Forget a subscription; its versions stay readable by version."""
        resource_id = request.path_params["id"]
        Permit.of(request).require(TYPE, "d")
        with self.server.store.write() as connection:
            lock_resources(connection, [(TYPE, resource_id)])
            self._require_version(connection, request, resource_id)
            drop_subscription(connection, resource_id)
            delete_resource(connection, TYPE, resource_id, datetime.now(UTC))
        return Response(status_code=204)

    def status(self, request: Request) -> Response:
        """Answer `$status` of one, of those that `id` names, or of those in the states that `status` names."""
        negotiate(request)
        Permit.of(request).require(TYPE, "r")
        pairs = query_pairs(request)
        ids = [request.path_params["id"]] if "id" in request.path_params else _values(pairs, "id")
        with self.server.store.read() as connection:
            listed = list_subscriptions(connection, ids=ids, statuses=_values(pairs, "status"), limit=_MOST_STATUSES)
            rows = [row for row in listed if _may_change(request, row)]
            why = reasons(connection, [row.resource_id for row in rows])
        if "id" in request.path_params and not rows:
            raise UnknownResourceError(f"no such {TYPE}")
        found = [(row, why.get(row.resource_id)) for row in rows]
        return answer(request, statuses(base_address(request), found))

    def events(self, request: Request) -> Response:
        """Answer `$events`: the events from `eventsSinceNumber` to `eventsUntilNumber`, both included."""
        negotiate(request)
        Permit.of(request).require(TYPE, "r")
        pairs = dict(query_pairs(request))
        first, last = _number(pairs, "eventsSinceNumber", 1), _number(pairs, "eventsUntilNumber", _LAST)
        with self.server.store.read() as connection:
            row = self._row(connection, request, request.path_params["id"])
            shown = replace(row, content=_lesser(row, pairs.get("content")))
            events = list_events(connection, row.resource_id, first, last, _MOST_EVENTS)
            bodies = event_bodies(connection, events) if shown.content == "full-resource" else {}
        return answer(request, notification(shown, "query-event", datetime.now(UTC), events, bodies))

    def _put(self, request: Request, resource_id: str, content: Json, *, is_new: bool) -> Response:
        now, permit = datetime.now(UTC), Permit.of(request)
        permit.require(TYPE, "c" if is_new else "u")
        with self.server.store.write() as connection:
            lock_resources(connection, [(TYPE, resource_id)])
            held = None if is_new else self._held(connection, request, resource_id)
            if is_new and count_open(connection) >= self.server.exchange.max_subscriptions:
                raise TooCostlyError("there are as many subscriptions as this server keeps")
            endpoints = self.server.exchange.endpoints
            subscriber = Subscriber(base_address(request), _owner(request), endpoints)
            if held is not None:
                subscriber = replace(subscriber, kept_headers=held.headers, kept_endpoint=held.endpoint)
            wanted = read_subscription(content, subscriber, now)
            permit.require(wanted.resource_type, "r")
            permit.require(wanted.resource_type, "s")
            _try(connection, wanted, self.server.clock())
            status = "off" if content.get("status") == "off" else "requested"
            put_subscription(connection, resource_id, wanted, status, now)  # type: ignore[arg-type] # one of two
            write_subscription(connection, kept_resource(content, resource_id) | {"status": status}, now)
            body = connection.execute(sa.select(fhir_resource.c.body).where(*_current(resource_id))).scalar_one()
        return written_response(request, base_address(request), body, is_new=is_new)

    def _held(self, connection: Connection, request: Request, resource_id: str) -> SubscriptionRow:
        """Return the subscription that is to be changed."""
        self._require_version(connection, request, resource_id)
        return self._row(connection, request, resource_id)

    def _require_version(self, connection: Connection, request: Request, resource_id: str) -> None:
        """Raise NotAllowedError where there is none: ids are the server's; VersionConflictError as If-Match wants."""
        expected = expected_version(request)
        version = connection.scalar(sa.select(fhir_resource.c.version).where(*_current(resource_id)))
        if version is None:
            raise NotAllowedError("no such Subscription, and ids are given by the server")
        self._row(connection, request, resource_id)
        if expected is not None and version != expected:
            raise VersionConflictError("the resource has another version by now")

    def _row(self, connection: Connection, request: Request, resource_id: str) -> SubscriptionRow:
        row = find_subscription(connection, resource_id)
        if row is None or not _may_change(request, row):
            raise UnknownResourceError(f"no such {TYPE}")
        return row


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    subscribing = _Subscribing(server)
    return [
        Route("/Subscription", subscribing.create, methods=["POST"]),
        Route("/Subscription/$status", subscribing.status, methods=["GET"]),
        Route("/Subscription/{id}/$status", subscribing.status, methods=["GET"]),
        Route("/Subscription/{id}/$events", subscribing.events, methods=["GET"]),
        Route("/Subscription/{id}", subscribing.update, methods=["PUT"]),
        Route("/Subscription/{id}", subscribing.delete, methods=["DELETE"]),
    ]


def count_open(connection: Connection) -> int:
    """Return how many subscriptions are not off."""
    return sum(count for status, count in count_subscriptions(connection).items() if status != "off")


def _current(resource_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    row = fhir_resource.c
    return row.type == TYPE, row.resource_id == resource_id, row.is_current


def _owner(request: Request) -> Mapping[str, Any] | None:
    caller = caller_of(request)
    if caller is None:
        return None
    scopes = None if caller.scopes is None else sorted(caller.scopes)
    return {"name": caller.name, "kind": caller.kind, "scopes": scopes, "patient": caller.patient}


def _try(connection: Connection, wanted: Wanted, clock: Clock) -> None:
    """Put the criteria to the database once, so that what it cannot answer is refused and never met by the loop."""
    try:
        met(connection, wanted, clock, [0])
    except NotPermittedError:
        raise
    except FhirError as error:
        raise BrokenError(f"criteria: {error}") from error


def _may_change(request: Request, row: SubscriptionRow) -> bool:
    """Say whether a subscription is the caller's own, or the caller none whom scopes bound."""
    caller = caller_of(request)
    return caller is None or caller.scopes is None or (row.owner or {}).get("name") == caller.name


def _values(pairs: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value for key, text in pairs if key == name for value in text.split(",") if value]


def _number(pairs: Mapping[str, str], name: str, default: int) -> int:
    text = pairs.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text[:20]) > _LAST:
        raise InvalidError(f"{name} takes a number")
    return int(text)


def _lesser(row: SubscriptionRow, asked: str | None) -> Any:
    """Return the content that is asked for, and no more than the subscription has."""
    if asked is None:
        return row.content
    if asked not in _CONTENTS:
        raise InvalidError(f"content takes {', '.join(_CONTENTS)}")
    return min(asked, row.content, key=_CONTENTS.index)
