"""A study's patient -> Patient. Taken from the study as it came; nothing is matched or merged."""

from __future__ import annotations

import re

from fhir_facade.codes import IDENTIFIER_TYPE, urn_oid
from fhir_facade.identity import ResourceIds
from fhir_facade.resource import Json, clean, present, reference
from fhir_facade.timing import fhir_date
from gateway.store.studies import StudyRow

_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_URI = re.compile(r"(https?://|urn:)\S+")
_GENDERS = {"M": "male", "F": "female", "O": "other"}
_REPRESENTATIONS = ("ABC", "IDE", "SYL")
"""Component groups of a person name (PS3.5 6.2.1), as iso21090 calls them."""
_REPRESENTATION_URL = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_NAME_PARTS = 5


def patient_id(study: StudyRow, ids: ResourceIds) -> str:
    """Return the resource id: the same for all studies of one issuer and patient id, else one for each study."""
    number = clean(study.patient_id)
    if not number:
        return ids.make("Patient", "study", study.study_instance_uid)
    return ids.make("Patient", "id", clean(study.patient_id_issuer), number)


def patient_reference(study: StudyRow, ids: ResourceIds) -> Json:
    """Return the reference that other resources carry."""
    return reference("Patient", patient_id(study, ids))


def patient_resource(study: StudyRow, ids: ResourceIds) -> Json:
    """Return the Patient."""
    return present(
        {
            "resourceType": "Patient",
            "id": patient_id(study, ids),
            "identifier": _identifiers(study),
            "name": _names(study.patient_name),
            "gender": _gender(study.patient_sex),
            "birthDate": fhir_date(study.patient_birth_date),
        }
    )


def issuer_system(issuer: str) -> str | None:
    """Return an issuer as identifier system: an OID or URI is one, a local name (PS3.3 table 10-17) is none."""
    text = clean(issuer)
    if _OID.fullmatch(text):
        return urn_oid(text)
    return text if _URI.fullmatch(text) else None


def assigner(issuer: str) -> Json:
    """Return who assigned an identifier, by name."""
    return present({"display": clean(issuer)})


def _identifiers(study: StudyRow) -> list[Json]:
    number = clean(study.patient_id)
    if not number:
        return []
    identifier = {
        "use": "usual",
        "type": {"coding": [{"system": IDENTIFIER_TYPE, "code": "MR"}]},
        "system": issuer_system(study.patient_id_issuer),
        "value": number,
        "assigner": assigner(study.patient_id_issuer),
    }
    return [present(identifier)]


def _gender(sex: str) -> str | None:
    text = clean(sex).upper()
    return _GENDERS.get(text, "unknown") if text else None


def _names(person_name: str) -> list[Json]:
    """Return a HumanName for each component group: alphabetic, ideographic, phonetic."""
    groups = [clean(group) for group in person_name.split("=")]
    names = []
    for group, representation in zip(groups, _REPRESENTATIONS, strict=False):
        name = _name(group)
        if name and any(groups[1:]):
            name["extension"] = [{"url": _REPRESENTATION_URL, "valueCode": representation}]
        if name:
            names.append(name)
    return names


def _name(group: str) -> Json:
    parts = [part.strip() for part in group.split("^")] + [""] * _NAME_PARTS
    family, given, middle, prefix, suffix = parts[:_NAME_PARTS]
    text = " ".join(part for part in (prefix, given, middle, family, suffix) if part)
    named = {
        "text": text,
        "family": family,
        "given": [*given.split(), *middle.split()],
        "prefix": prefix.split(),
        "suffix": suffix.split(),
    }
    return present(named)
