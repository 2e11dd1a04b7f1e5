"""Findings and measurements -> Observation: one for each level of the hierarchy, one for each measurement.

A finding has the findings of the level below as its members, a segment's group its measurements. Identifiers are the
Tracking UIDs of the SR, so that a value can be followed from FHIR into DICOM. An Observation is `preliminary` here:
`standing.py` gives it the status that follows from what persons said. What a new revision no longer says is withdrawn
(`entered-in-error`), never removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fhir_facade.about import About
from fhir_facade.codes import AI_ASSERTED, DICOM_UID, LOCAL_SYSTEM, UCUM, coding, concept, urn_oid
from fhir_facade.identity import ResourceIds
from fhir_facade.resource import Json, clean, present, reference
from gateway.report import outcome_role
from gateway.report.assignment import Assignment, derived_uid
from gateway.report.figures import EPISTEMIC, UNCERTAINTY, number, percent, uncertainties
from gateway.report.wording import label_set_words
from inference.findings import ClassProbability, Code, Finding, Measurement, NotEvaluable, Outcome, Segment

_CATEGORY: Json = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}]
}
_OBJECTS = {
    "seg": "DICOM Segmentation",
    "sr-findings": "DICOM SR with the findings",
    "sr-measurements": "DICOM SR with the measurements",
}
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_EVALUABILITY = Code("evaluability", "99HYBRIDMED", "Evaluability")
_GROUP = Code("125007", "DCM", "Measurement Group")
_UNCERTAINTY_TEXTS = {
    UNCERTAINTY.value: "Uncertainty: spread of the classes' probabilities, 0 % certain, 100 % undecided",
    EPISTEMIC.value: "How much of the uncertainty, on the same scale, more training images could remove",
}
_LABEL_SET = Code("label-set", "99HYBRIDMED", "Classes that hold the true one, with a stated coverage")


@dataclass(frozen=True, slots=True)
class Setting:
    """What all Observations of one outcome share."""

    ids: ResourceIds
    assignment: Assignment
    ordinal: int
    """Position of the outcome in its job, which the tracking UIDs depend on."""
    subject_key: tuple[str, ...]
    """Study, bundle, series and position among the outcomes of that series: names the outcome over all revisions."""
    about: About
    device: Json
    """Reference to the algorithm."""
    objects: Mapping[str, str] = field(default_factory=dict)
    """Kind -> SOP Instance UID of the DICOM results of the outcome: 'seg', 'sr-findings', 'sr-measurements'."""

    def observation_id(self, *parts: str) -> str:
        """Return the id of the Observation that these parts name within the outcome."""
        return self.ids.make("Observation", *self.subject_key, *parts)

    def tracking_uid(self, tracking_id: str) -> str:
        """Return the UID that SR and SEG give to this tracking identifier."""
        role = outcome_role(f"tracking/{tracking_id}", self.ordinal)
        return derived_uid(self.assignment.job_id, self.assignment.revision, role)


def observations(outcome: Outcome, setting: Setting) -> list[Json]:
    """Return the Observations of one outcome, findings before measurements."""
    if isinstance(outcome, NotEvaluable):
        return [_not_evaluable(outcome, setting)]
    findings = [_finding(finding, outcome.findings, setting) for finding in outcome.findings]
    return [*findings, *(each for segment in outcome.segments for each in _measurements(segment, setting))]


def withdrawn(content: Json) -> Json:
    """Return an Observation that the newest revision no longer makes."""
    return content | {"status": "entered-in-error"}


def _base(setting: Setting, tracking_id: str, parts: Sequence[str]) -> Json:
    return {
        "resourceType": "Observation",
        "id": setting.observation_id(*parts),
        "meta": {"security": [AI_ASSERTED]},
        "identifier": [{"system": DICOM_UID, "value": urn_oid(setting.tracking_uid(tracking_id))}],
        "status": "preliminary",
        "category": [_CATEGORY],
        "subject": setting.about.subject,
        "effectiveDateTime": setting.about.effective,
        "issued": setting.about.issued,
        "device": setting.device,
        "derivedFrom": [setting.about.imaging_study],
    }


def _dicom(setting: Setting, *kinds: str) -> list[Json]:
    """Return logical references to those of the DICOM results that are there: by SOP Instance UID."""
    return [
        {
            "type": "DocumentReference",
            "identifier": {"system": DICOM_UID, "value": urn_oid(setting.objects[kind])},
            "display": _OBJECTS[kind],
        }
        for kind in kinds
        if kind in setting.objects
    ]


def _finding(finding: Finding, all_findings: Sequence[Finding], setting: Setting) -> Json:
    children = [each.tracking_id for each in all_findings if each.parent_id == finding.tracking_id]
    parents = [finding.parent_id] if finding.parent_id is not None else []
    content = _base(setting, finding.tracking_id, ("finding", finding.tracking_id)) | {
        "code": concept(finding.question),
        "valueCodeableConcept": concept(finding.answer.code),
        "bodySite": concept(finding.site) if finding.site else None,
        "component": [
            *(_probability(finding, each) for each in finding.alternatives),
            *_uncertainty(finding),
            *_label_set(finding),
        ],
        "hasMember": [_finding_reference(child, setting) for child in children],
        "derivedFrom": [
            setting.about.imaging_study,
            *_dicom(setting, "sr-findings"),
            *(_finding_reference(parent, setting) for parent in parents),
        ],
    }
    return present(content)


def _finding_reference(tracking_id: str, setting: Setting) -> Json:
    return reference("Observation", setting.observation_id("finding", tracking_id))


def _probability(finding: Finding, each: ClassProbability) -> Json:
    """Return the component of one class.

    Its code differs from the Observation's (R4 invariant obs-7): where the question is the class itself, as in
    'pneumonia?', the class's own coding is left to the answer.
    """
    own = {
        "system": LOCAL_SYSTEM,
        "code": f"probability-{_slug(finding.level)}-{_slug(each.name)}",
        "display": clean(f"Probability of {each.code.meaning}"),
    }
    is_question = (each.code.scheme, each.code.value) == (finding.question.scheme, finding.question.value)
    return {
        "code": {"coding": [own] if is_question else [own, coding(each.code)], "text": own["display"]},
        "valueQuantity": {"value": percent(each.probability), "unit": "%", "system": UCUM, "code": "%"},
    }


def _uncertainty(finding: Finding) -> Iterator[Json]:
    """Yield the components that tell how undecided the algorithm is; none where there is but one class."""
    for code, share in uncertainties(finding):
        yield {
            "code": concept(code, text=_UNCERTAINTY_TEXTS[code.value]),
            "valueQuantity": {"value": percent(share), "unit": "%", "system": UCUM, "code": "%"},
        }


def _label_set(finding: Finding) -> list[Json]:
    """Return the component that names the classes among which the true one is; none where no coverage is stated."""
    said = label_set_words(finding)
    return [] if said is None else [{"code": concept(_LABEL_SET), "valueString": clean(said)}]


def _slug(name: str) -> str:
    return "-".join(clean(name).lower().split())


def _measurements(segment: Segment, setting: Setting) -> Iterator[Json]:
    """Yield the group of a segment, then its measurements; nothing for a segment that was not measured."""
    if not segment.measurements:
        return
    site = concept(segment.type, *([segment.laterality] if segment.laterality else []), text=segment.label)
    derived = [setting.about.imaging_study, *_dicom(setting, "seg", "sr-measurements")]
    members = []
    for measurement in segment.measurements:
        quantity = measurement.quantity
        parts = ("measurement", segment.tracking_id, quantity.scheme, quantity.value)
        content = _base(setting, segment.tracking_id, parts)
        content |= {"code": concept(quantity), "bodySite": site, "derivedFrom": derived}
        members.append(present(content | _value(measurement)))
    group = _base(setting, segment.tracking_id, ("group", segment.tracking_id))
    group |= {"code": concept(_GROUP), "bodySite": site, "derivedFrom": derived}
    yield present(group | {"hasMember": [reference("Observation", each["id"]) for each in members]})
    yield from members


def _value(measurement: Measurement) -> Json:
    if not math.isfinite(measurement.value):
        return {"dataAbsentReason": {"coding": [{"system": _ABSENT, "code": "not-a-number"}]}}
    unit = measurement.unit
    is_symbol = unit.value.isalnum() or unit.value == "%"
    return {
        "valueQuantity": {
            "value": number(measurement.value),
            "unit": unit.value if is_symbol and not unit.value.isdigit() else clean(unit.meaning),
            "system": UCUM,
            "code": unit.value,
        }
    }


def _not_evaluable(outcome: NotEvaluable, setting: Setting) -> Json:
    why = clean(f"not evaluable ({outcome.code}): {outcome.reason}")
    absent = {"coding": [{"system": _ABSENT, "code": "not-performed"}], "text": why}
    content = _base(setting, "evaluability", ("evaluability",))
    return present(content | {"code": concept(_EVALUABILITY), "dataAbsentReason": absent})
