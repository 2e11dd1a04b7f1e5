"""What the FHIR server is measured against: FastAPI routes with the statement that a person would write for each case.

They answer the same bytes from the same database, and can do nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import sqlalchemy as sa
from fastapi import FastAPI, Request, Response
from fhir_facade.paging import page_token

from gateway.store import Store
from gateway.store.engine import UtcDateTime

MEDIA_TYPE = "application/fhir+json"
COUNT = 20
_LIMIT = f" LIMIT {COUNT + 1}"
_ROWS = (
    "SELECT r.type, r.resource_id, r.body, r.id, i.low FROM fhir_index i JOIN fhir_resource r ON r.id = i.resource_pk "
)
_REPORTS = f"{_ROWS}WHERE i.type = 'DiagnosticReport' AND i.parameter = "
_BY_IDENTIFIER = (
    "SELECT p.resource_id FROM fhir_index n JOIN fhir_resource p ON p.id = n.resource_pk "
    "WHERE n.type = 'Patient' AND n.parameter = 'identifier' AND n.value = :value"
)
_CODED = sa.text(f"{_REPORTS}'code' AND i.value = :value ORDER BY i.resource_pk{_LIMIT}")
_MOMENTS = (sa.bindparam("low", type_=UtcDateTime), sa.bindparam("high", type_=UtcDateTime))
_READ = sa.text(
    "SELECT body FROM fhir_resource WHERE type = 'DiagnosticReport' AND resource_id = :value AND is_current"
)
STATEMENTS: dict[str, sa.TextClause] = {
    "patient": sa.text(f"{_REPORTS}'subject' AND i.value = :value ORDER BY i.resource_pk{_LIMIT}"),
    "code": _CODED,
    "date": sa.text(f"{_REPORTS}'date' AND i.low >= :low AND i.low < :high ORDER BY i.low, i.resource_pk{_LIMIT}")
    .bindparams(*_MOMENTS)
    .columns(low=UtcDateTime),
    "chained": sa.text(f"{_REPORTS}'subject' AND i.value IN ({_BY_IDENTIFIER}) ORDER BY i.resource_pk{_LIMIT}"),
    "include": _CODED,
}
_INCLUDED = sa.text(
    "SELECT DISTINCT r.type, r.resource_id, r.body, r.id FROM fhir_index i "
    "JOIN fhir_resource r ON r.type = i.system AND r.resource_id = i.value AND r.is_current "
    "WHERE i.resource_pk IN :numbers AND i.parameter IN ('subject', 'result') ORDER BY r.id"
).bindparams(sa.bindparam("numbers", expanding=True))


def add_routes(app: FastAPI, store: Store) -> None:
    """Add the bare routes below /bare."""

    @app.get("/bare/read/{resource_id}")
    def read(resource_id: str) -> Response:
        with store.read() as connection:
            body = connection.execute(_READ, {"value": resource_id}).scalar_one()
        return Response(body, media_type=MEDIA_TYPE)

    @app.get("/bare/{case}")
    def search(request: Request, case: str, query: str) -> Response:
        values: dict[str, Any] = {name: text for name, text in request.query_params.items() if name != "query"}
        if case == "date":
            values = {name: datetime.fromisoformat(text) for name, text in values.items()}
        included: Sequence[Any] = ()
        with store.read() as connection:
            rows = connection.execute(STATEMENTS[case], values).all()
            if case == "include":
                included = connection.execute(_INCLUDED, {"numbers": [row.id for row in rows[:COUNT]]}).all()
        base = f"{str(request.base_url).rstrip('/')}/fhir"
        return Response(_bundle(base, query, case, rows, included), media_type=MEDIA_TYPE)


def _bundle(base: str, query: str, case: str, rows: Sequence[Any], included: Sequence[Any]) -> bytes:
    shown, address = rows[:COUNT], f"{base}/DiagnosticReport?{query}"
    head: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    links = [{"relation": "self", "url": address}]
    if len(rows) > COUNT:
        last = shown[-1]
        token = page_token("date", [last.low, last.id]) if case == "date" else page_token("", [last.id])
        links.append({"relation": "next", "url": f"{address}&{urlencode({'_page': token})}"})
    else:
        head["total"] = len(rows)
    entries = [_entry(base, row, b"match") for row in shown] + [_entry(base, row, b"include") for row in included]
    return orjson.dumps(head | {"link": links})[:-1] + b',"entry":[' + b",".join(entries) + b"]}"


def _entry(base: str, row: Any, mode: bytes) -> bytes:
    address = orjson.dumps(f"{base}/{row.type}/{row.resource_id}")
    return b'{"fullUrl":%b,"resource":%b,"search":{"mode":"%b"}}' % (address, row.body, mode)
