"""Versions of one resource, of a type, of all: `GET /{type}/{id}/_history`, `/{type}/_history`, `/_history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import answer, negotiate
from fhir_facade.matching import Condition
from fhir_facade.outcome import InvalidError, UnknownResourceError
from fhir_facade.paging import Key, open_token, page_token, typed_keys
from fhir_facade.permit import Permit
from fhir_facade.query import read_count
from fhir_facade.request import base_address, query_pairs, resource_id_of, resource_type_of
from fhir_facade.rows import resource_rows
from fhir_facade.search import bounded_time
from fhir_facade.searchset import joined
from fhir_facade.server import FhirServer
from fhir_facade.stored import COLUMNS, Stored, stored
from fhir_facade.timing import instant, period
from gateway.store.tables import fhir_resource

_ORDER = "history"
_CREATED, _UPDATED, _DELETED = ("POST", "201 Created"), ("PUT", "200 OK"), ("DELETE", "204 No Content")
_UNDERSTOOD = ("_since", "_at", "_count")


@dataclass(frozen=True, slots=True)
class _Versions:
    server: FhirServer

    def history(self, request: Request) -> Response:
        """Answer with the newest versions first."""
        negotiate(request)
        permit = Permit.of(request)
        asked = {name: value for name, value in query_pairs(request) if value}
        count = read_count(asked.get("_count"))
        conditions = self._conditions(request, asked)
        whole = sa.select(*(fhir_resource.c[name] for name in COLUMNS)).where(sa.true(), *conditions)
        newest = whole.order_by(fhir_resource.c.last_updated.desc(), fhir_resource.c.id.desc()).limit(count + 1)
        with self.server.store.read() as connection, bounded_time(connection):
            if "_page" in asked:
                newest = newest.where(_before(asked["_page"]))
            rows = [stored(row) for row in connection.execute(newest)]
            is_instance = "id" in request.path_params
            total = connection.scalar(sa.select(sa.func.count()).select_from(whole.subquery())) if is_instance else None
            shown = permit.visible(connection, rows[:count], self.server.clock())
            if is_instance and not self._is_seen(connection, permit, request):
                raise UnknownResourceError("no such resource")  # nor how often it was written
        if is_instance and not total and not asked.keys() & set(_UNDERSTOOD):
            raise UnknownResourceError("no such resource")
        last = rows[count - 1] if len(rows) > count > 0 else None
        return answer(request, _bundle(request, asked, shown, total, last))

    def _is_seen(self, connection: Connection, permit: Permit, request: Request) -> bool:
        """Say whether the one resource that is asked for belongs to what the caller sees."""
        return permit.sees(connection, resource_type_of(request), resource_id_of(request), self.server.clock())

    def _conditions(self, request: Request, asked: Mapping[str, str]) -> list[Condition]:
        conditions: list[Condition] = []
        if "type" in request.path_params:
            resource_type = resource_type_of(request)
            Permit.of(request).require(resource_type, "r")
            conditions.append(fhir_resource.c.type == resource_type)
        if "id" in request.path_params:
            conditions.append(fhir_resource.c.resource_id == resource_id_of(request))
        if "_since" in asked:
            conditions.append(fhir_resource.c.last_updated >= self._period("_since", asked["_since"])[0])
        if "_at" in asked:
            low, high = self._period("_at", asked["_at"])
            later = resource_rows()
            replaced = sa.select(later.c.id).where(
                later.c.type == fhir_resource.c.type,
                later.c.resource_id == fhir_resource.c.resource_id,
                later.c.version > fhir_resource.c.version,
                later.c.last_updated <= low,
            )
            conditions += [fhir_resource.c.last_updated < high, ~replaced.exists()]
        return conditions

    def _period(self, name: str, text: str) -> tuple[datetime, datetime]:
        try:
            return period(text, self.server.zone)
        except (ValueError, OverflowError):
            raise InvalidError(f"{name} is written as in 2024-05-01T09:30:00+02:00") from None


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    history = _Versions(server).history
    addresses = ("/_history", "/{type}/_history", "/{type}/{id}/_history")
    return [Route(address, history, methods=["GET"]) for address in addresses]


def _before(token: str) -> Condition:
    """Return the condition of versions that come after a position, which is to say that are older."""
    order, values = open_token(token)
    if order != _ORDER:
        raise InvalidError("_page: a token of another search")
    kinds: list[type[Key]] = [datetime, int]
    moment, number = typed_keys(values, kinds)
    column = fhir_resource.c.last_updated
    return sa.and_(column <= moment, sa.or_(column < moment, fhir_resource.c.id < number))


def _bundle(
    request: Request, asked: Mapping[str, str], shown: Sequence[Stored], total: int | None, last: Stored | None
) -> bytes:
    base, understood = base_address(request), [(name, asked[name]) for name in _UNDERSTOOD if name in asked]
    address = f"{base}{request.url.path.removeprefix(request.scope.get('root_path', ''))}"
    links = [{"relation": "self", "url": f"{address}?{urlencode(understood)}".rstrip("?")}]
    if last is not None:
        token = page_token(_ORDER, [last.last_updated, last.number])
        links.append({"relation": "next", "url": f"{address}?{urlencode([*understood, ('_page', token)])}"})
    head = {"resourceType": "Bundle", "type": "history"} | ({} if total is None else {"total": total})
    return joined(head | {"link": links}, (_entry(base, each) for each in shown))


def _entry(base: str, each: Stored) -> bytes:
    is_deleted = not each.body
    method, status = _DELETED if is_deleted else _CREATED if each.version == 1 else _UPDATED
    whole = f"{each.type}/{each.resource_id}"
    head = {
        "fullUrl": f"{base}/{whole}",
        "request": {"method": method, "url": each.type if method == "POST" else whole},
        "response": {
            "status": status,
            "etag": f'W/"{each.version}"',
            "lastModified": instant(each.last_updated),
        },
    }
    resource = b"" if is_deleted else b',"resource":' + each.body
    return orjson.dumps(head)[:-1] + resource + b"}"
