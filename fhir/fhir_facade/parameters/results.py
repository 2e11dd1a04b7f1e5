"""What may be asked of results and images: DiagnosticReport, Observation, ImagingStudy, Media, ServiceRequest."""

from __future__ import annotations

from fhir_facade.parameters.parameter import (
    Parameter,
    composite,
    date,
    own,
    own_reference,
    quantity,
    reference,
    string,
    token,
    union,
)

_FHIR = "http://hl7.org/fhir/"
_SUBJECTS = ("Patient", "Group", "Device", "Location")
_PERSONS = ("Practitioner", "PractitionerRole", "Organization")
_MEMBERS = ("Observation", "QuestionnaireResponse", "MolecularSequence")
_MODALITY = "Modality of the images that it was made from"


def _shared(*subjects: str) -> tuple[Parameter, ...]:
    """Return what clinical resources with a subject have alike."""
    return (
        token("identifier", "identifier", "clinical-identifier"),
        reference("subject", "subject", *subjects),
        reference("patient", "", "Patient", definition="clinical-patient", rows=("subject",)),
        reference("encounter", "encounter", "Encounter", definition="clinical-encounter"),
    )


DIAGNOSTIC_REPORT = (
    *_shared(*_SUBJECTS),
    token("status", "status", system=_FHIR + "diagnostic-report-status"),
    date("date", "effectiveDateTime | effectivePeriod", "clinical-date"),
    date("issued", "issued"),
    token("code", "code", "clinical-code"),
    token("category", "category"),
    token("conclusion", "conclusionCode"),
    reference("based-on", "basedOn", "ServiceRequest", "CarePlan"),
    reference("media", "media.link", "Media"),
    reference("performer", "performer", *_PERSONS, "CareTeam"),
    reference("result", "result", "Observation"),
    reference("results-interpreter", "resultsInterpreter", *_PERSONS, "CareTeam"),
    own("modality", "token", _MODALITY),
    own_reference("basedOn", "ServiceRequest", "", "The same as based-on (IHE RAD-143)", rows=("based-on",)),
    own_reference("imagingStudy", "ImagingStudy", "imagingStudy", "The study that was evaluated (IHE RAD-143)"),
)
OBSERVATION = (
    *_shared(*_SUBJECTS),
    token("status", "status", system=_FHIR + "observation-status"),
    date("date", "effectiveDateTime | effectivePeriod | effectiveInstant", "clinical-date"),
    token("code", "code", "clinical-code"),
    token("category", "category"),
    token("method", "method"),
    reference("based-on", "basedOn", "ServiceRequest", "CarePlan"),
    reference("part-of", "partOf", "ImagingStudy", "Procedure"),
    reference("derived-from", "derivedFrom", "ImagingStudy", "Media", "DocumentReference", *_MEMBERS),
    reference("has-member", "hasMember", *_MEMBERS),
    reference("device", "device", "Device", "DeviceMetric"),
    reference("focus", "focus", "ImagingStudy", "Patient", "Observation"),
    reference("performer", "performer", *_PERSONS, "Patient", "CareTeam"),
    token("value-concept", "valueCodeableConcept"),
    date("value-date", "valueDateTime | valuePeriod"),
    string("value-string", "valueString"),
    quantity("value-quantity", "valueQuantity"),
    token("data-absent-reason", "dataAbsentReason"),
    token("component-code", "component.code"),
    token("component-value-concept", "component.valueCodeableConcept"),
    quantity("component-value-quantity", "component.valueQuantity"),
    token("component-data-absent-reason", "component.dataAbsentReason"),
    union("combo-code", "token", "code", "component-code"),
    union("combo-value-concept", "token", "value-concept", "component-value-concept"),
    union("combo-value-quantity", "quantity", "value-quantity", "component-value-quantity"),
    union("combo-data-absent-reason", "token", "data-absent-reason", "component-data-absent-reason"),
    composite("code-value-concept", ".", "code", "valueCodeableConcept", "token"),
    composite("code-value-quantity", ".", "code", "valueQuantity", "quantity"),
    composite("code-value-date", ".", "code", "valueDateTime | valuePeriod", "date"),
    composite("code-value-string", ".", "code", "valueString", "string"),
    composite("component-code-value-concept", "component", "code", "valueCodeableConcept", "token"),
    composite("component-code-value-quantity", "component", "code", "valueQuantity", "quantity"),
    union("combo-code-value-concept", "composite", "code-value-concept", "component-code-value-concept"),
    union(
        "combo-code-value-quantity",
        "composite",
        "code-value-quantity",
        "component-code-value-quantity",
        second="quantity",
    ),
    own("modality", "token", _MODALITY),
)
IMAGING_STUDY = (
    *_shared("Patient", "Device", "Group"),
    token("status", "status", system=_FHIR + "imagingstudy-status"),
    date("started", "started"),
    own("date", "date", "The same as started", rows=("started",)),
    token("modality", "series.modality | modality"),
    token("series", "series.uid"),
    token("instance", "series.instance.uid"),
    token("dicom-class", "series.instance.sopClass"),
    token("bodysite", "series.bodySite"),
    token("reason", "reasonCode"),
    reference("basedon", "basedOn", "ServiceRequest", "CarePlan"),
    reference("endpoint", "endpoint | series.endpoint", "Endpoint"),
    reference("interpreter", "interpreter", "Practitioner", "PractitionerRole"),
    reference("performer", "series.performer.actor", *_PERSONS, "Device"),
    reference("referrer", "referrer", "Practitioner", "PractitionerRole"),
)
MEDIA = (
    token("identifier", "identifier"),
    reference("subject", "subject", *_SUBJECTS, "Practitioner", "Specimen"),
    reference("patient", "", "Patient", rows=("subject",)),
    reference("encounter", "encounter", "Encounter"),
    token("status", "status", system=_FHIR + "event-status"),
    date("created", "createdDateTime | createdPeriod"),
    token("type", "type"),
    token("modality", "modality"),
    token("site", "bodySite"),
    token("view", "view"),
    reference("based-on", "basedOn", "ServiceRequest", "CarePlan"),
    reference("device", "device", "Device", "DeviceMetric"),
    reference("operator", "operator", *_PERSONS),
)
SERVICE_REQUEST = (
    *_shared(*_SUBJECTS),
    token("status", "status", system=_FHIR + "request-status"),
    token("intent", "intent", system=_FHIR + "request-intent"),
    token("priority", "priority", system=_FHIR + "request-priority"),
    date("authored", "authoredOn"),
    date("occurrence", "occurrenceDateTime | occurrencePeriod"),
    token("code", "code", "clinical-code"),
    token("category", "category"),
    token("body-site", "bodySite"),
    token("requisition", "requisition"),
    token("performer-type", "performerType"),
    reference("based-on", "basedOn", "ServiceRequest", "CarePlan"),
    reference("performer", "performer", *_PERSONS, "Device"),
    reference("replaces", "replaces", "ServiceRequest"),
    reference("requester", "requester", *_PERSONS, "Patient", "Device"),
)
