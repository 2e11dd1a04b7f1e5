"""The search parameters of each resource type: what may be asked, and where its value stands in a resource.

One table serves three: the values that are indexed, the queries that are understood, and the CapabilityStatement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["token", "reference", "date", "string"]
_DEFINITION = "http://hl7.org/fhir/SearchParameter/"

_CODES = "http://hl7.org/fhir/"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter of one type."""

    name: str
    kind: Kind
    path: str = ""
    """Elements from the resource on, with dots; lists are walked. Empty: the value is not an element of the body."""
    targets: tuple[str, ...] = ()
    """Types that a reference may lead to."""
    definition: str | None = None
    """Canonical URL; None for a parameter of our own."""
    documentation: str = ""
    system: str | None = None
    """Code system of an element of type code, which does not name it."""


def _standard(name: str, kind: Kind, path: str, *targets: str, definition: str = "") -> Parameter:
    return Parameter(name, kind, path, targets, f"{_DEFINITION}{definition}" if definition else None)


def _status(resource_type: str, codes: str) -> Parameter:
    definition = f"{_DEFINITION}{resource_type}-status"
    return Parameter("status", "token", "status", definition=definition, system=_CODES + codes)


_REPORT_PARAMETERS = (
    _standard("identifier", "token", "identifier", definition="clinical-identifier"),
    _standard("patient", "reference", "subject", "Patient", definition="clinical-patient"),
    _standard("subject", "reference", "subject", "Patient", definition="DiagnosticReport-subject"),
    _status("DiagnosticReport", "diagnostic-report-status"),
    _standard("date", "date", "effectiveDateTime", definition="clinical-date"),
    _standard("issued", "date", "issued", definition="DiagnosticReport-issued"),
    _standard("code", "token", "code", definition="clinical-code"),
    _standard("category", "token", "category", definition="DiagnosticReport-category"),
    _standard("conclusion", "token", "conclusionCode", definition="DiagnosticReport-conclusion"),
    _standard("result", "reference", "result", "Observation", definition="DiagnosticReport-result"),
    Parameter("modality", "token", documentation="Modality of the images that the report is about"),
    Parameter(
        "imagingStudy", "reference", "imagingStudy", ("ImagingStudy",), documentation="The study that was evaluated"
    ),
)
_OBSERVATION_PARAMETERS = (
    _standard("identifier", "token", "identifier", definition="clinical-identifier"),
    _standard("patient", "reference", "subject", "Patient", definition="clinical-patient"),
    _standard("subject", "reference", "subject", "Patient", definition="Observation-subject"),
    _status("Observation", "observation-status"),
    _standard("date", "date", "effectiveDateTime", definition="clinical-date"),
    _standard("code", "token", "code", definition="clinical-code"),
    _standard("category", "token", "category", definition="Observation-category"),
    _standard("component-code", "token", "component.code", definition="Observation-component-code"),
    _standard("value-concept", "token", "valueCodeableConcept", definition="Observation-value-concept"),
    _standard("data-absent-reason", "token", "dataAbsentReason", definition="Observation-data-absent-reason"),
    _standard("device", "reference", "device", "Device", definition="Observation-device"),
    _standard(
        "derived-from", "reference", "derivedFrom", "ImagingStudy", "Observation", definition="Observation-derived-from"
    ),
    _standard("has-member", "reference", "hasMember", "Observation", definition="Observation-has-member"),
    Parameter("modality", "token", documentation="Modality of the images that the observation was made on"),
)
_IMAGING_STUDY_PARAMETERS = (
    _standard("identifier", "token", "identifier", definition="clinical-identifier"),
    _standard("patient", "reference", "subject", "Patient", definition="clinical-patient"),
    _standard("subject", "reference", "subject", "Patient", definition="ImagingStudy-subject"),
    _status("ImagingStudy", "imagingstudy-status"),
    _standard("started", "date", "started", definition="ImagingStudy-started"),
    Parameter("date", "date", "started", documentation="The same as started"),
    _standard("modality", "token", "series.modality", definition="ImagingStudy-modality"),
    _standard("series", "token", "series.uid", definition="ImagingStudy-series"),
)
_PATIENT_PARAMETERS = (
    _standard("identifier", "token", "identifier", definition="Patient-identifier"),
    _standard("name", "string", "name", definition="Patient-name"),
    _standard("family", "string", "name.family", definition="individual-family"),
    _standard("given", "string", "name.given", definition="individual-given"),
    Parameter(
        "gender", "token", "gender", (), _DEFINITION + "individual-gender", system=_CODES + "administrative-gender"
    ),
    _standard("birthdate", "date", "birthDate", definition="individual-birthdate"),
)
_DEVICE_PARAMETERS = (
    _standard("identifier", "token", "identifier", definition="Device-identifier"),
    _standard("device-name", "string", "deviceName.name", definition="Device-device-name"),
    _standard("manufacturer", "string", "manufacturer", definition="Device-manufacturer"),
    _status("Device", "device-status"),
    _standard("type", "token", "type", definition="Device-type"),
)
_PROVENANCE_PARAMETERS = (
    _standard("target", "reference", "target", "DiagnosticReport", "Observation", definition="Provenance-target"),
    _standard("agent", "reference", "agent.who", "Device", definition="Provenance-agent"),
    _standard("entity", "reference", "entity.what", "ImagingStudy", "DiagnosticReport", definition="Provenance-entity"),
    _standard("recorded", "date", "recorded", definition="Provenance-recorded"),
    Parameter("date", "date", "recorded", documentation="The same as recorded"),
    Parameter("patient", "reference", "", ("Patient",), _DEFINITION + "Provenance-patient"),
)

PARAMETERS: dict[str, dict[str, Parameter]] = {
    resource_type: {each.name: each for each in parameters}
    for resource_type, parameters in (
        ("DiagnosticReport", _REPORT_PARAMETERS),
        ("Observation", _OBSERVATION_PARAMETERS),
        ("ImagingStudy", _IMAGING_STUDY_PARAMETERS),
        ("Patient", _PATIENT_PARAMETERS),
        ("Device", _DEVICE_PARAMETERS),
        ("Provenance", _PROVENANCE_PARAMETERS),
    )
}
"""Resource type -> name -> parameter. `_id` and `_lastUpdated` stand for every type and are no rows of the index."""
