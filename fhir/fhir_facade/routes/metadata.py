"""`GET /metadata`."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fhir_facade.answer import answer, negotiate
from fhir_facade.capability import capability_statement
from fhir_facade.request import base_address
from fhir_facade.server import FhirServer


def routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes."""

    def metadata(request: Request) -> Response:
        negotiate(request)
        base, known = base_address(request), request.app.routes
        return answer(request, capability_statement(base, server.since, known, security=server.security))

    return [Route("/metadata", metadata, methods=["GET"])]
