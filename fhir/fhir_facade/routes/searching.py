"""Searches: over a type, over several, and within a compartment; by GET and by POST.

`GET /{type}?…`, `POST /{type}/_search`, `GET /?_type=…`, `POST /_search`, `GET /Patient/{id}/{type}?…`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import answer, negotiate
from fhir_facade.compartment import COMPARTMENTS, within
from fhir_facade.criterion import Asked
from fhir_facade.outcome import UnknownTypeError
from fhir_facade.parameters import SEARCHED
from fhir_facade.permit import Permit
from fhir_facade.query import Search, types_of, understand
from fhir_facade.request import (
    Pairs,
    base_address,
    form_pairs,
    is_strict,
    query_pairs,
    resource_id_of,
    resource_type_of,
)
from fhir_facade.search import run_search
from fhir_facade.searchset import searchset
from fhir_facade.server import FhirServer

_ALL = "*"


@dataclass(frozen=True, slots=True)
class _Searching:
    server: FhirServer

    def by_get(self, request: Request) -> Response:
        return self._search(request, query_pairs(request))

    async def by_post(self, request: Request) -> Response:
        return await run_in_threadpool(self._search, request, await form_pairs(request))

    def _search(self, request: Request, pairs: Pairs) -> Response:
        negotiate(request, dict(pairs).get("_format"))
        return found(self.server, request, _understood(request, pairs))


def found(server: FhirServer, request: Request, search: Search) -> Response:
    """Answer a search with its Bundle: of what the caller may see."""
    permit = Permit.of(request)
    search = permit.narrow(search)
    with server.store.read() as connection:
        page = run_search(connection, search, server.clock())
        page = replace(page, included=permit.visible(connection, page.included, server.clock()))
    return answer(request, searchset(base_address(request), search, page))


def _understood(request: Request, pairs: Pairs) -> Search:
    strict = is_strict(request)
    if "type" not in request.path_params:
        types, others = types_of(pairs)
        search = understand(types, others, is_strict=strict, path="")
        asked = [pair for pair in pairs if pair[0] == "_type"]
        return replace(search, understood=(*asked, *search.understood))
    if "owner" not in request.path_params:
        return understand([_searched(resource_type_of(request))], pairs, is_strict=strict)
    owner, member = request.path_params["owner"], request.path_params["type"]
    members = COMPARTMENTS.get(owner)
    if members is None or (member != _ALL and member not in members):
        raise UnknownTypeError("there is no such compartment")
    types = tuple(members) if member == _ALL else (member,)
    also: list[Asked] = [within(owner, resource_id_of(request), types)]
    path = f"{owner}/{resource_id_of(request)}/{member}"
    return understand(types, pairs, is_strict=strict, path=path, also=also)


def _searched(resource_type: str) -> str:
    if resource_type not in SEARCHED:
        raise UnknownTypeError(f"a {resource_type} is read, not searched")
    return resource_type


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    searching = _Searching(server)
    return [
        Route("/", searching.by_get, methods=["GET"]),
        Route("/_search", searching.by_post, methods=["POST"]),
        Route("/{type}/_search", searching.by_post, methods=["POST"]),
        Route("/{owner}/{id}/{type}/_search", searching.by_post, methods=["POST"]),
        Route("/{owner}/{id}/{type}", searching.by_get, methods=["GET"]),
        Route("/{type}", searching.by_get, methods=["GET"]),
    ]
