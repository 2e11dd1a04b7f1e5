"""Operations that read: `Patient/{id}/$everything` and `DiagnosticReport/$latest-per-study`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import negotiate
from fhir_facade.asked import AskedColumn
from fhir_facade.compartment import COMPARTMENTS, within
from fhir_facade.criterion import Asked
from fhir_facade.include import Include
from fhir_facade.operation import CareDate, LatestOfStudy
from fhir_facade.outcome import InvalidError, UnknownResourceError
from fhir_facade.parameters import PARAMETERS
from fhir_facade.permit import Permit
from fhir_facade.query import understand
from fhir_facade.request import (
    FORM,
    Pairs,
    bounded_body,
    form_pairs,
    is_strict,
    media_type_of,
    query_pairs,
    resource_id_of,
)
from fhir_facade.routes.searching import found
from fhir_facade.search import run_search
from fhir_facade.server import FhirServer

_LARGEST_BODY = 65536
_SUPPORTING = ("Device", "Organization", "Practitioner", "Endpoint")
"""Types that belong to no patient, and go along with what refers to them."""
_OWN = frozenset({"start", "end", "_since", "_type"})


@dataclass(frozen=True, slots=True)
class _Operations:
    server: FhirServer

    def everything(self, request: Request) -> Response:
        """Answer with all that belongs to a patient, page by page."""
        return self._everything(request, query_pairs(request))

    async def everything_posted(self, request: Request) -> Response:
        """Answer the same, the parameters in a Parameters resource or a form."""
        return await run_in_threadpool(self._everything, request, await _posted(request))

    def _everything(self, request: Request, pairs: Pairs) -> Response:
        negotiate(request)
        patient_id = resource_id_of(request)
        self._require_patient(request, patient_id)
        asked = dict(pairs)
        types = _types(asked.get("_type"))
        also: list[Asked] = [within("Patient", patient_id, types)]
        also += [CareDate(asked.get("start", ""), asked.get("end", ""))] if asked.keys() & {"start", "end"} else []
        also += [AskedColumn("_lastUpdated", "", (f"ge{asked['_since']}",))] if asked.get("_since") else []
        path = f"Patient/{patient_id}/$everything"
        others = [pair for pair in pairs if pair[0] in ("_count", "_page")]
        search = understand(types, others, is_strict=is_strict(request), path=path, also=also)
        includes = () if "_type" in asked else _supporting(types)
        understood = (*(pair for pair in pairs if pair[0] in _OWN), *search.understood)
        return found(self.server, request, replace(search, includes=tuple(includes), understood=understood))

    def latest(self, request: Request) -> Response:
        """Answer a search for reports with the one of each study that was written last."""
        negotiate(request)
        path = "DiagnosticReport/$latest-per-study"
        strict = is_strict(request)
        search = understand(
            ["DiagnosticReport"], query_pairs(request), is_strict=strict, path=path, also=[LatestOfStudy()]
        )
        return found(self.server, request, search)

    def _require_patient(self, request: Request, patient_id: str) -> None:
        """Raise UnknownResourceError unless there is this Patient, and the caller may see it."""
        search = Permit.of(request).narrow(understand(["Patient"], [("_id", patient_id)]))
        with self.server.store.read() as connection:
            if not run_search(connection, search, self.server.clock()).found:
                raise UnknownResourceError("no such Patient")


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""
    operations = _Operations(server)
    everything = "/Patient/{id}/$everything"
    return [
        Route(everything, operations.everything, methods=["GET"]),
        Route(everything, operations.everything_posted, methods=["POST"]),
        Route("/DiagnosticReport/$latest-per-study", operations.latest, methods=["GET"]),
    ]


def _types(asked: str | None) -> tuple[str, ...]:
    members = tuple(COMPARTMENTS["Patient"])
    if asked is None:
        return members
    types = tuple(dict.fromkeys(part for part in asked.split(",") if part))
    if not types or not set(types) <= set(members):
        raise InvalidError(f"_type: to a patient belong {', '.join(members)}")
    return types


def _supporting(types: Sequence[str]) -> list[Include]:
    return [
        Include(is_reverse=False, is_iterating=False, source=source, parameters=names, target=target)
        for source in types
        for target in _SUPPORTING
        if (names := _leading(source, target))
    ]


def _leading(source: str, target: str) -> tuple[str, ...]:
    """Return the index rows of a type that lead to another."""
    leading = (each for each in PARAMETERS[source].values() if each.kind == "reference" and target in each.targets)
    return tuple(dict.fromkeys(name for each in leading for name in each.indexed_as))


async def _posted(request: Request) -> Pairs:
    """Return the parameters of the address, and those of a posted form or Parameters resource."""
    if media_type_of(request) == FORM:
        return await form_pairs(request)
    body = await bounded_body(request, _LARGEST_BODY)
    return [*query_pairs(request), *_parameters(body)] if body else query_pairs(request)


def _parameters(body: bytes) -> Pairs:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidError("the body is no JSON") from None
    if not isinstance(content, dict) or content.get("resourceType") != "Parameters":
        raise InvalidError("what is posted here is a Parameters resource")
    given = content.get("parameter", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise InvalidError("Parameters.parameter is a list of parameters")
    return [(str(each.get("name", "")), _value(each)) for each in given]


def _value(parameter: dict[str, Any]) -> str:
    return next((str(value) for name, value in parameter.items() if name.startswith("value")), "")
