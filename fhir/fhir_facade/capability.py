"""CapabilityStatement, made from the table of search parameters that the queries use too."""

from __future__ import annotations

from datetime import datetime

import gateway
from fhir_facade.parameters import PARAMETERS, Parameter
from fhir_facade.resource import Json, encode, present
from fhir_facade.timing import instant

FHIR_VERSION = "4.0.1"
_EVERY_TYPE = (
    Parameter("_id", "token", definition="http://hl7.org/fhir/SearchParameter/Resource-id"),
    Parameter("_lastUpdated", "date", definition="http://hl7.org/fhir/SearchParameter/Resource-lastUpdated"),
)


def capability_statement(base: str, since: datetime) -> bytes:
    """Return what this server can do.

    Parameters
    ----------
    base
        Address of this FHIR server.
    since
        From when on this holds: the start of the process.
    """
    statement = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant(since),
        "kind": "instance",
        "software": {"name": "HybridMed Gateway", "version": gateway.__version__},
        "implementation": {"description": "Results of imaging AI", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": ["application/fhir+json", "json"],
        "rest": [{"mode": "server", "resource": [_resource(name) for name in PARAMETERS]}],
    }
    return encode(statement)


def _resource(resource_type: str) -> Json:
    return {
        "type": resource_type,
        "interaction": [{"code": "read"}, {"code": "vread"}, {"code": "search-type"}],
        "versioning": "versioned",
        "readHistory": True,
        "conditionalRead": "full-support",
        "searchParam": [_parameter(each) for each in (*_EVERY_TYPE, *PARAMETERS[resource_type].values())],
    }


def _parameter(parameter: Parameter) -> Json:
    return present(
        {
            "name": parameter.name,
            "definition": parameter.definition,
            "type": parameter.kind,
            "documentation": parameter.documentation,
        }
    )
