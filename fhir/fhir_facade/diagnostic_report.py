"""One job's outcomes -> DiagnosticReport: one for each study and bundle, a new version for each revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_facade.about import About
from fhir_facade.codes import AI_ASSERTED, DICOM_UID, URI, concept, translation, urn_oid
from fhir_facade.resource import Json, clean, present, reference
from fhir_facade.standing import Standing, practitioner
from gateway.report.fhir_input import FhirInput
from gateway.report.wording import CHINESE, ENGLISH, conclusion
from gateway.store.studies import SeriesRow
from inference.findings import Code, Findings, Outcome

_RADIOLOGY: Json = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}]
}
_XR_CHEST = Code("30745-4", "LN", "XR Chest Views")
_XR = Code("43468-8", "LN", "XR Unspecified body region Views")
_MR_BRAIN = Code("24590-2", "LN", "MR Brain")
_BY_BODY_PART = {
    ("CT", "CHEST"): Code("24627-2", "LN", "CT Chest"),
    ("MR", "BRAIN"): _MR_BRAIN,
    ("MR", "HEAD"): _MR_BRAIN,
    ("CR", "CHEST"): _XR_CHEST,
    ("DX", "CHEST"): _XR_CHEST,
}
_BY_MODALITY = {
    "CT": Code("25045-6", "LN", "CT Unspecified body region"),
    "MR": Code("25056-3", "LN", "MR Unspecified body region"),
    "NM": Code("49118-3", "LN", "NM Unspecified body region"),
    "PT": Code("44136-0", "LN", "PT Unspecified body region"),
    "CR": _XR,
    "DX": _XR,
}
_ANY_STUDY = Code("18748-4", "LN", "Diagnostic imaging study")


@dataclass(frozen=True, slots=True)
class Attached:
    """What a report carries for people."""

    forms: Sequence[Json] = ()
    """Attachments: the report as HTML and PDF."""
    media: Sequence[Json] = ()
    """Links to the pictures, with what they show."""


def diagnostic_report_resource(  # noqa: PLR0913, PLR0917 # all that a report holds together
    finished: FhirInput,
    report_id: str,
    about: About,
    observations: Sequence[Json],
    standing: Standing,
    attached: Attached,
) -> Json:
    """Return the DiagnosticReport.

    Parameters
    ----------
    report_id
        The same for all revisions.
    observations
        The resources that the report holds together.
    standing
        What persons said: decides the status (`fhir_facade.standing`).
    attached
        Documents and pictures; of what was withdrawn no picture is shown.
    """
    word = standing.now
    is_withdrawn = word is not None and word.action == "reject"
    # What was withdrawn says no more than that: who shows a conclusion must not show the rejected one.
    shown = () if is_withdrawn else finished.outcomes
    said, chinese = (
        clean(conclusion(shown, standing.sentences(wording), standing.corrections, wording))
        for wording in (ENGLISH, CHINESE)
    )
    return present(
        {
            "resourceType": "DiagnosticReport",
            "id": report_id,
            "meta": {"security": [AI_ASSERTED]},
            "language": ENGLISH.tag,
            "identifier": _identifiers(finished),
            "basedOn": [about.order] if about.order else None,
            "status": standing.report_status,
            "category": [_RADIOLOGY],
            "code": report_code(finished.series, finished.outcomes),
            "subject": about.subject,
            "effectiveDateTime": about.effective,
            "issued": about.issued,
            "performer": [about.institution] if about.institution else None,
            "resultsInterpreter": [practitioner(word.who)] if word is not None and not is_withdrawn else None,
            "result": [reference("Observation", each["id"]) for each in observations],
            "imagingStudy": [about.imaging_study],
            "media": [] if is_withdrawn else list(attached.media),
            "conclusion": said,
            "_conclusion": translation(chinese),
            "conclusionCode": _conclusion_codes(shown),
            "presentedForm": list(attached.forms),
        }
    )


def report_code(series: Sequence[SeriesRow], outcomes: Sequence[Outcome]) -> Json:
    """Return the LOINC code of the procedure, from modality and body part of what was evaluated."""
    evaluated = {outcome.series_instance_uid for outcome in outcomes}
    candidates = [each for each in series if each.series_instance_uid in evaluated] or [
        each for each in series if not each.is_own
    ]
    codes = (
        _BY_BODY_PART.get((each.modality, each.body_part.strip().upper())) or _BY_MODALITY.get(each.modality)
        for each in candidates
    )
    return concept(next((code for code in codes if code is not None), _ANY_STUDY))


def _identifiers(finished: FhirInput) -> list[Json]:
    reports = (each for each in finished.artefacts if each.kind.startswith("sr-") and not each.variant)
    uids = [{"system": DICOM_UID, "value": urn_oid(each.sop_instance_uid)} for each in reports if each.sop_instance_uid]
    return [*uids, {"system": URI, "value": f"urn:uuid:{finished.job.job_id}"}]


def _conclusion_codes(outcomes: Sequence[Outcome]) -> list[Json]:
    """Return the answers of the innermost levels, each once."""
    codes: dict[Code, None] = {}
    for outcome in outcomes:
        if isinstance(outcome, Findings):
            parents = {each.parent_id for each in outcome.findings}
            codes |= {each.answer.code: None for each in outcome.findings if each.tracking_id not in parents}
    return [concept(code) for code in codes]
