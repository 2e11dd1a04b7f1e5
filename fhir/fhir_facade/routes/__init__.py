"""The routes of the FHIR server, a module for each subject.

A module has `routes(server)`, which returns its routes, and stands in `MODULES`. Handlers parse, call and render:
`request.py` says what was asked, `answer.py` makes the response, `failures.py` turns errors into OperationOutcomes.
Of two routes that fit an address and a method, the one of the earlier module is taken; `reading`, which takes any
`/{type}/{id}`, is the last.
`together.py` has no routes: it is what `batch` does with a transaction that writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute

from fhir_facade.routes import (
    batch,
    binary,
    definitions,
    exporting,
    history,
    metadata,
    operations,
    reading,
    searching,
    subscribing,
    writing,
)
from fhir_facade.server import FhirServer

MODULES = (
    metadata,
    batch,
    definitions,
    subscribing,
    writing,
    exporting,
    operations,
    binary,
    history,
    searching,
    reading,
)


def all_routes(server: FhirServer) -> Sequence[BaseRoute]:
    """Return the routes of all modules."""
    return [route for module in MODULES for route in module.routes(server)]
