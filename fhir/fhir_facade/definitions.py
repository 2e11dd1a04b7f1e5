"""What this server defines itself: its operations and its search parameters, as resources that can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fhir_facade.parameters import PARAMETERS, Parameter
from fhir_facade.parameters.parameter import OWN_DEFINITION
from fhir_facade.resource import Json, present

PUBLISHED = "2026-01-01"
_LATEST: Json = {
    "resourceType": "OperationDefinition",
    "id": "latest-per-study",
    "name": "LatestPerStudy",
    "title": "Latest report of each study",
    "status": "active",
    "kind": "operation",
    "affectsState": False,
    "description": "Of the reports that meet a search, those after which none was written for the same imaging study.",
    "code": "latest-per-study",
    "resource": ["DiagnosticReport"],
    "system": False,
    "type": True,
    "instance": False,
    "parameter": [
        {
            "name": name,
            "use": "in",
            "min": 0,
            "max": "*",
            "type": "string",
            "searchType": kind,
            "documentation": f"As in a search; any other search parameter of DiagnosticReport is taken too: {name}",
        }
        for name, kind in (("patient", "reference"), ("imagingStudy", "reference"), ("status", "token"))
    ]
    + [{"name": "return", "use": "out", "min": 1, "max": "1", "type": "Bundle", "documentation": "A searchset"}],
}
OPERATIONS: Mapping[str, Json] = {"latest-per-study": _LATEST}
DEFINED = ("OperationDefinition", "SearchParameter")
STANDARD_OPERATIONS: Mapping[str, str] = {
    "everything": "http://hl7.org/fhir/OperationDefinition/Patient-everything",
    "export": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export",
    "patient-export": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/patient-export",
    **{
        name: f"http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/{name}"
        for name in ("backport-subscription-status", "backport-subscription-events")
    },
}


def definitions(base: str, resource_type: str) -> dict[str, Json]:
    """Return the definitions of a type by id, with addresses below that of this server."""
    if resource_type == "OperationDefinition":
        return {
            name: {**each, "url": f"{base}/OperationDefinition/{name}", "date": PUBLISHED}
            for name, each in OPERATIONS.items()
        }
    return {each["id"]: each for each in _search_parameters(base)}


def definition_address(base: str, resource_type: str, parameter: Parameter) -> str:
    """Return where a search parameter is defined."""
    if parameter.definition:
        return f"http://hl7.org/fhir/SearchParameter/{parameter.definition}"
    return f"{base}/{OWN_DEFINITION}{_id(resource_type, parameter)}"


def _search_parameters(base: str) -> Iterator[Json]:
    for resource_type, parameters in PARAMETERS.items():
        for each in parameters.values():
            if not each.definition:
                yield present(
                    {
                        "resourceType": "SearchParameter",
                        "id": _id(resource_type, each),
                        "url": definition_address(base, resource_type, each),
                        "name": each.name,
                        "status": "active",
                        "date": PUBLISHED,
                        "description": each.documentation,
                        "code": each.name,
                        "base": [resource_type],
                        "type": each.kind,
                        "expression": _expression(resource_type, each),
                        "target": list(each.targets),
                    }
                )


def _id(resource_type: str, parameter: Parameter) -> str:
    return f"{resource_type}-{parameter.name}".lower() + ("-camel" if parameter.name != parameter.name.lower() else "")


def _expression(resource_type: str, parameter: Parameter) -> str | None:
    parameters = PARAMETERS[resource_type]
    paths = [parameter.path, *(parameters[name].path for name in parameter.rows)]
    return " | ".join(f"{resource_type}.{path}" for path in paths if path) or None
