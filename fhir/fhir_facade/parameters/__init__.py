"""The search parameters of each resource type: what may be asked, and where its value stands in a resource.

One table serves four: the values that are indexed, the queries that are understood, the CapabilityStatement and the
SearchParameters that can be read.

parameter.py  one parameter
results.py    reports, observations, images, requests
parties.py    persons, organisations, machines
workflow.py   how it came about; and what every type has
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fhir_facade.parameters import parties, results, workflow
from fhir_facade.parameters.parameter import Kind, Parameter

__all__ = ["COLUMNS", "PARAMETERS", "SEARCHED", "Kind", "Parameter", "is_standard"]


def _table(resource_type: str, parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    """Return a type's parameters by name, with the ids of their definitions, `Patient-name` unless given."""
    named = (
        each if each.definition or each.documentation else replace(each, definition=f"{resource_type}-{each.name}")
        for each in parameters
    )
    return {each.name: each for each in (*workflow.EVERY_TYPE, *named)}


PARAMETERS: dict[str, dict[str, Parameter]] = {
    resource_type: _table(resource_type, parameters)
    for resource_type, parameters in (
        ("DiagnosticReport", results.DIAGNOSTIC_REPORT),
        ("Observation", results.OBSERVATION),
        ("ImagingStudy", results.IMAGING_STUDY),
        ("Patient", parties.PATIENT),
        ("Device", parties.DEVICE),
        ("Organization", parties.ORGANIZATION),
        ("Practitioner", parties.PRACTITIONER),
        ("Endpoint", parties.ENDPOINT),
        ("ServiceRequest", results.SERVICE_REQUEST),
        ("Media", results.MEDIA),
        ("Provenance", workflow.PROVENANCE),
        ("Task", workflow.TASK),
        ("AuditEvent", workflow.AUDIT_EVENT),
        ("Subscription", workflow.SUBSCRIPTION),
        ("Flag", workflow.FLAG),
        ("Binary", ()),
    )
}
"""Resource type -> name -> parameter, of every type that this server holds."""

SEARCHED = tuple(resource_type for resource_type in PARAMETERS if resource_type != "Binary")
"""Types that can be searched; a Binary is read alone (R4 binary)."""

COLUMNS = frozenset({"_id", "_lastUpdated"})


def is_standard(parameter: Parameter) -> bool:
    """Say whether FHIR R4 defines the parameter."""
    return bool(parameter.definition)
