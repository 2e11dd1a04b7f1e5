"""A study with its series -> ImagingStudy. Results of ours that came back are not part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from fhir_facade.codes import DCM, DICOM_UID, IDENTIFIER_TYPE, urn_oid
from fhir_facade.identity import ResourceIds
from fhir_facade.patient import assigner, issuer_system, patient_reference
from fhir_facade.resource import Json, clean, present, reference
from fhir_facade.timing import fhir_date_time
from gateway.store.studies import SeriesRow, StudyRow

_LARGEST_NUMBER = 2**31 - 1
"""Of unsignedInt (R4 datatypes)."""


def imaging_study_id(study: StudyRow, ids: ResourceIds) -> str:
    """Return the resource id."""
    return ids.make("ImagingStudy", study.study_instance_uid)


def imaging_study_reference(study: StudyRow, ids: ResourceIds) -> Json:
    """Return the reference that other resources carry."""
    return reference("ImagingStudy", imaging_study_id(study, ids))


def started(study: StudyRow, zone: tzinfo | None) -> str | None:
    """Return when the study was made."""
    return fhir_date_time(study.study_date, study.study_time, study.timezone_offset, zone)


def accession_identifier(study: StudyRow) -> Json | None:
    """Return the accession number as an Identifier of type ACSN; None where there is none."""
    number = clean(study.accession_number)
    if not number:
        return None
    return present(
        {
            "type": {"coding": [{"system": IDENTIFIER_TYPE, "code": "ACSN"}]},
            "system": issuer_system(study.accession_issuer),
            "value": number,
            "assigner": assigner(study.accession_issuer),
        }
    )


def modalities(series: Sequence[SeriesRow]) -> list[str]:
    """Return the modalities of what was sent, each once."""
    return sorted({_code(each.modality) for each in series if not each.is_own} - {""})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an ImagingStudy refers to besides its patient."""

    order: Json | None = None
    """Reference to the ServiceRequest."""
    endpoints: Sequence[Json] = ()
    """References to where the images are."""
    procedure: Json | None = None
    """CodeableConcept of what was ordered."""


_ALONE = Surroundings()


def imaging_study_resource(
    study: StudyRow,
    series: Sequence[SeriesRow],
    ids: ResourceIds,
    zone: tzinfo | None = None,
    around: Surroundings = _ALONE,
) -> Json:
    """Return the ImagingStudy."""
    sent = [each for each in series if not each.is_own]
    accession = accession_identifier(study)
    referrer = person_text(study.referring_physician)
    return present(
        {
            "resourceType": "ImagingStudy",
            "id": imaging_study_id(study, ids),
            "identifier": [
                {"system": DICOM_UID, "value": urn_oid(study.study_instance_uid)},
                *([accession] if accession else []),
            ],
            "status": "available",
            "modality": [_modality(name) for name in modalities(series)],
            "subject": patient_reference(study, ids),
            "started": started(study, zone),
            "basedOn": [around.order] if around.order else None,
            "referrer": {"display": referrer} if referrer else None,
            "endpoint": list(around.endpoints),
            "numberOfSeries": len(sent),
            "numberOfInstances": sum(each.instance_count for each in sent),
            "procedureCode": [around.procedure] if around.procedure else None,
            "description": clean(study.study_description),
            "series": [_series(study, each, zone) for each in sent],
        }
    )


def _series(study: StudyRow, series: SeriesRow, zone: tzinfo | None) -> Json:
    number = series.series_number
    body_part = clean(series.body_part)
    return present(
        {
            "uid": series.series_instance_uid,
            "number": number if number is not None and 0 <= number <= _LARGEST_NUMBER else None,
            "modality": _modality(_code(series.modality) or "OT"),
            "description": clean(series.series_description),
            "numberOfInstances": series.instance_count,
            "bodySite": {"display": body_part} if body_part else None,
            "started": fhir_date_time(series.series_date, series.series_time, study.timezone_offset, zone),
        }
    )


def _code(text: str) -> str:
    """Return text as a FHIR code holds it: single spaces between words (R4 datatypes, code)."""
    return " ".join(clean(text).split())


def _modality(name: str) -> Json:
    return {"system": DCM, "code": name}


def person_text(person_name: str) -> str:
    """Return the first component group of a person name as text."""
    return " ".join(part for part in clean(person_name).split("=")[0].split("^") if part.strip())
