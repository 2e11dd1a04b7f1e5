"""`OperationDefinition` and `SearchParameter`: what this server defines itself, read and listed."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import answer, negotiate
from fhir_facade.definitions import DEFINED, definitions
from fhir_facade.outcome import UnknownResourceError
from fhir_facade.request import base_address, query_pairs
from fhir_facade.resource import Json
from fhir_facade.searchset import joined
from fhir_facade.server import FhirServer

_ASKED = frozenset({"_id", "url", "name", "code", "base", "type", "status"})


def _read(request: Request) -> Response:
    negotiate(request)
    known = definitions(base_address(request), _type(request))
    content = known.get(request.path_params["id"])
    if content is None:
        raise UnknownResourceError("no such definition")
    return answer(request, orjson.dumps(content), headers={"ETag": 'W/"1"'})


def _list(request: Request) -> Response:
    negotiate(request)
    asked = [(name, value.split(",")) for name, value in query_pairs(request) if name in _ASKED and value]
    base = base_address(request)
    found = [each for each in definitions(base, _type(request)).values() if _meets(each, asked)]
    head = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
    entries = (
        {"fullUrl": f"{base}/{each['resourceType']}/{each['id']}", "resource": each, "search": {"mode": "match"}}
        for each in found
    )
    return answer(request, joined(head, map(orjson.dumps, entries)))


def _type(request: Request) -> str:
    return request.url.path.removeprefix(request.scope.get("root_path", "")).split("/")[1]


def _meets(content: Json, asked: Sequence[tuple[str, list[str]]]) -> bool:
    for name, values in asked:
        held = content.get(name.removeprefix("_"), [])
        if not set(values) & set(held if isinstance(held, list) else [held]):
            return False
    return True


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    del server  # they depend on nothing that is stored
    return [
        route
        for name in DEFINED
        for route in (Route(f"/{name}/{{id}}", _read, methods=["GET"]), Route(f"/{name}", _list, methods=["GET"]))
    ]
