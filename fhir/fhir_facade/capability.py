"""CapabilityStatement, made from what is there: the routes, and the table of search parameters that queries use too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from starlette.routing import BaseRoute, Route

import gateway
from fhir_facade.definitions import STANDARD_OPERATIONS, definition_address
from fhir_facade.parameters import PARAMETERS, SEARCHED, Parameter
from fhir_facade.resource import Json, encode, present
from fhir_facade.subscriptions.topic import topics_of_server
from fhir_facade.timing import instant

FHIR_VERSION = "4.0.1"
FORMATS = ("application/fhir+json", "application/fhir+xml", "json", "xml")
_WRITING = {
    ("POST", ""): "create",
    ("PUT", "/{id}"): "update",
    ("PATCH", "/{id}"): "patch",
    ("DELETE", "/{id}"): "delete",
}
_OPERATIONS = {
    "Patient": ("everything", "patient-export"),
    "DiagnosticReport": ("latest-per-study",),
    "Subscription": ("backport-subscription-status", "backport-subscription-events"),
}
_DOCUMENTATION = (
    "A transaction either reads, or writes Patient and ServiceRequest; all of it holds or none. "
    "No Group is held: export is of all resources, or of what belongs to patients. "
    "As FHIR 5.0 all that is held is read too, but for Subscriptions without a topic."
)
_CODES = {
    "patient-export": "export",
    "backport-subscription-status": "status",
    "backport-subscription-events": "events",
}


def capability_statement(
    base: str, since: datetime, routes: Sequence[BaseRoute] = (), *, security: Json | None = None
) -> bytes:
    """Return what this server can do.

    Parameters
    ----------
    base
        Address of this FHIR server.
    since
        From when on this holds: the start of the process.
    routes
        Those of the server, which tell what may be written.
    security
        How callers prove who they are (CapabilityStatement.rest.security).
    """
    rest = {
        "mode": "server",
        "documentation": _DOCUMENTATION,
        "security": security,
        "resource": [_resource(base, name, routes) for name in PARAMETERS],
        "interaction": [{"code": code} for code in ("batch", "transaction", "history-system", "search-system")],
        "searchParam": [_parameter(base, "Resource", each) for each in PARAMETERS["Binary"].values()],
        "operation": [_operation(base, "export")],
        "compartment": [
            f"http://hl7.org/fhir/CompartmentDefinition/{name}" for name in ("patient", "device", "practitioner")
        ],
    }
    statement = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant(since),
        "kind": "instance",
        "software": {"name": "HybridMed Gateway", "version": gateway.__version__},
        "implementation": {"description": "Results of imaging AI", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": list(FORMATS),
        "implementationGuide": ["http://hl7.org/fhir/uv/bulkdata/ImplementationGuide/hl7.fhir.uv.bulkdata"],
        "rest": [present(rest)],
    }
    return encode(statement)


def _resource(base: str, resource_type: str, routes: Sequence[BaseRoute]) -> Json:
    is_searched = resource_type in SEARCHED
    codes = ["read", "vread", "history-instance", "history-type", "search-type"] if is_searched else ["read"]
    written = [code for (method, tail), code in _WRITING.items() if _has(routes, method, f"/{resource_type}{tail}")]
    references = [each for each in PARAMETERS[resource_type].values() if each.kind == "reference"]
    return present(
        {
            "extension": topics_of_server() if resource_type == "Subscription" else None,
            "type": resource_type,
            "interaction": [{"code": code} for code in (*codes, *written)],
            "versioning": "versioned" if is_searched else "no-version",
            "readHistory": is_searched,
            "conditionalCreate": resource_type in {"Patient", "ServiceRequest"} if "create" in written else None,
            "updateCreate": False if "update" in written else None,
            "conditionalRead": "full-support",
            "searchInclude": [f"{resource_type}:{each.name}" for each in references],
            "searchRevInclude": _leading_here(resource_type),
            "searchParam": [_parameter(base, resource_type, each) for each in PARAMETERS[resource_type].values()]
            if is_searched
            else [],
            "operation": [_operation(base, name) for name in _OPERATIONS.get(resource_type, ())],
        }
    )


def _has(routes: Sequence[BaseRoute], method: str, path: str) -> bool:
    return any(isinstance(each, Route) and each.path == path and method in (each.methods or ()) for each in routes)


def _leading_here(resource_type: str) -> list[str]:
    """Return the parameters of all types that lead to this one."""
    return [
        f"{source}:{each.name}"
        for source, parameters in PARAMETERS.items()
        for each in parameters.values()
        if each.kind == "reference" and resource_type in each.targets
    ]


def _operation(base: str, name: str) -> Json:
    address = STANDARD_OPERATIONS.get(name, f"{base}/OperationDefinition/{name}")
    return {"name": _CODES.get(name, name), "definition": address}


def _parameter(base: str, resource_type: str, parameter: Parameter) -> Json:
    return present(
        {
            "name": parameter.name,
            "definition": definition_address(base, resource_type, parameter),
            "type": parameter.kind,
            "documentation": parameter.documentation,
        }
    )
