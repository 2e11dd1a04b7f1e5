"""The order that the images were made for -> ServiceRequest, as far as the images tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhir_facade.codes import IDENTIFIER_TYPE, concept
from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import accession_identifier, person_text
from fhir_facade.patient import patient_id, patient_reference
from fhir_facade.resource import Json, clean, present, reference
from gateway.store.studies import StudyRow
from inference.findings import Code

if TYPE_CHECKING:  # the package loads the libraries that write DICOM, which writing a Task does not need
    from gateway.report.order import ImagingOrder

_IMAGING = Code("363679005", "SCT", "Imaging procedure")
_REQUESTED: Json = {"text": "Requested Procedure ID"}


def service_request_reference(study: StudyRow, ids: ResourceIds) -> Json | None:
    """Return the reference that other resources carry; None where the images name no accession number.

    It carries the accession number too, so that who knows the order by another id finds it.
    """
    accession = accession_identifier(study)
    if accession is None:
        return None
    return reference("ServiceRequest", _id(study, ids)) | {"type": "ServiceRequest", "identifier": accession}


def service_request_resource(study: StudyRow, order: ImagingOrder | None, ids: ResourceIds) -> Json | None:
    """Return the ServiceRequest; None where the images name no accession number.

    Without an order, which the headers tell once they are read, it says what the study says. Its status is `unknown`:
    images show that an order was carried out, not whether it is closed.
    """
    accession = accession_identifier(study)
    if accession is None:
        return None
    referrer = person_text(study.referring_physician)
    requested, reason = (clean(order.procedure_id), clean(order.reason)) if order else ("", "")
    numbers = (("PLAC", clean(order.placer_number)), ("FILL", clean(order.filler_number))) if order else ()
    return present(
        {
            "resourceType": "ServiceRequest",
            "id": _id(study, ids),
            "identifier": [
                accession,
                *(_numbered(kind, value) for kind, value in numbers if value),
                *([{"value": requested, "type": _REQUESTED}] if requested else []),
            ],
            "status": "unknown",
            "intent": "order",
            "category": [concept(_IMAGING)],
            "code": procedure_concept(study, order),
            "subject": patient_reference(study, ids),
            "requester": {"display": referrer} if referrer else None,
            "reasonCode": [{"text": reason}] if reason else None,
        }
    )


def procedure_concept(study: StudyRow, order: ImagingOrder | None) -> Json | None:
    """Return what was ordered, coded where the images code it; None where they do not say."""
    text = (clean(order.procedure) if order else "") or clean(study.study_description)
    if order is not None and order.procedure_code is not None:
        return concept(order.procedure_code, text=text or None)
    return {"text": text} if text else None


def _numbered(kind: str, value: str) -> Json:
    return {"type": {"coding": [{"system": IDENTIFIER_TYPE, "code": kind}]}, "value": value}


def _id(study: StudyRow, ids: ResourceIds) -> str:
    """Return the id: accession numbers are unique for one issuer and patient at most."""
    issuer, number = clean(study.accession_issuer), clean(study.accession_number)
    return ids.make("ServiceRequest", issuer, number, patient_id(study, ids))
