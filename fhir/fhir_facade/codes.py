"""Coding schemes of DICOM (PS3.16 section 8) -> code systems of FHIR, and the codes used in more than one place."""

from __future__ import annotations

from fhir_facade.resource import Json, clean, present
from gateway.terms_zh import TERMS
from inference.findings import Code

LOCAL_SYSTEM = "urn:oid:2.25.91553202471632467992798396799953124466"
"""Code system of the scheme 99HYBRIDMED."""
LOINC = "http://loinc.org"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
UCUM = "http://unitsofmeasure.org"
DICOM_UID = "urn:dicom:uid"
URI = "urn:ietf:rfc:3986"
IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"

_TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "SRT": "http://snomed.info/srt",
    "LN": LOINC,
    "DCM": DCM,
    "RADLEX": "http://www.radlex.org",
    "UCUM": UCUM,
    "99HYBRIDMED": LOCAL_SYSTEM,
}
AI_ASSERTED: Json = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
"""Security label of everything that an algorithm says."""


def coding(code: Code) -> Json:
    """Return a Coding; a scheme without a known system goes without one, a meaning known in Chinese with it."""
    display = clean(code.meaning)
    said = translation(TERMS.get(display.lower(), ""))
    return present({"system": _SYSTEMS.get(code.scheme), "code": code.value, "display": display, "_display": said})


def translation(chinese: str) -> Json:
    """Return what goes beside a text (R4 extension `translation`) to give it in Chinese; nothing for an empty one."""
    if not chinese:
        return {}
    parts = [{"url": "lang", "valueCode": "zh"}, {"url": "content", "valueString": clean(chinese)}]
    return {"extension": [{"url": _TRANSLATION, "extension": parts}]}


def concept(*codes: Code, text: str | None = None) -> Json:
    """Return a CodeableConcept; the text is the first code's meaning where none is given."""
    return {"coding": [coding(code) for code in codes], "text": clean(text or codes[0].meaning)}


def urn_oid(uid: str) -> str:
    """Return a DICOM UID as the URI that FHIR writes."""
    return f"urn:oid:{uid}"
