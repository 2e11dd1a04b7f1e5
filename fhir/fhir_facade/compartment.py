"""Compartments (R4 compartmentdefinition): what belongs to one patient, or to one device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fhir_facade.asked import AskedWithin
from fhir_facade.parameters import PARAMETERS

COMPARTMENTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Patient": {
        "Patient": ("link",),
        "DiagnosticReport": ("subject",),
        "Observation": ("subject", "performer"),
        "ImagingStudy": ("patient",),
        "ServiceRequest": ("subject", "performer"),
        "Media": ("subject",),
        "Provenance": ("patient",),
        "Task": ("subject",),
        "AuditEvent": ("patient",),
    },
    "Device": {
        "DiagnosticReport": ("subject",),
        "Observation": ("subject", "device"),
        "ImagingStudy": ("subject",),
        "ServiceRequest": ("performer", "requester", "subject"),
        "Media": ("subject", "device"),
        "Provenance": ("agent",),
        "AuditEvent": ("agent",),
    },
    "Practitioner": {
        "DiagnosticReport": ("performer", "results-interpreter"),
        "Observation": ("performer",),
        "ImagingStudy": ("referrer", "interpreter", "performer"),
        "ServiceRequest": ("performer", "requester"),
        "Media": ("operator",),
        "Provenance": ("agent",),
        "Task": ("owner", "requester"),
        "AuditEvent": ("agent",),
    },
}
"""Owner's type -> member's type -> parameters that lead from the member to the owner. Tasks are the standard's no
part of a patient's compartment; ours tell of the patient's studies, and are."""


def within(owner_type: str, owner_id: str, types: Iterable[str]) -> AskedWithin:
    """Return the criterion that a resource of these types belongs to a compartment."""
    members = COMPARTMENTS[owner_type]
    ways = tuple(
        (
            resource_type,
            tuple(
                name
                for parameter in members.get(resource_type, ())
                for name in PARAMETERS[resource_type][parameter].indexed_as
            ),
        )
        for resource_type in types
    )
    return AskedWithin(ways, owner_type, owner_id)
