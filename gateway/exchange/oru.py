"""A report -> HL7 v2.5.1 ORU^R01 (chapter 7.3.1): an observation result, unsolicited.

One OBR for the report, then one OBX for the conclusion, one for the study's UID, and for each Observation one for its
value and one for each of its components; those of one Observation share OBX-4. A measurement's OBX is preceded by one
that names the site. Codes keep their systems: LN, SCT, DCM, RADLEX, UCUM, or 99HYBRIDMED for our own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from gateway.exchange.er7 import Value, message, segment
from gateway.exchange.report import Json, Report

CONTROL_ID_LENGTH: Final = 20
"""MSH-10 holds no more (2.14.9.10)."""
_SYSTEMS: Mapping[str, str] = {
    "http://loinc.org": "LN",
    "http://snomed.info/sct": "SCT",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://unitsofmeasure.org": "UCUM",
    "http://radlex.org": "RADLEX",
    "http://www.radlex.org": "RADLEX",
}
_OWN = "99HYBRIDMED"
_STATUSES: Mapping[str, str] = {
    "registered": "P",
    "partial": "P",
    "preliminary": "P",
    "final": "F",
    "amended": "C",
    "corrected": "C",
    "appended": "C",
    "cancelled": "X",
    "entered-in-error": "X",
}
"""R4 status -> table 0123: preliminary, final, corrected, no result."""
_OBSERVED: Mapping[str, str] = {**_STATUSES, "entered-in-error": "W"}
"""R4 status -> table 0085, which knows what 0123 does not: W, what was sent is wrong."""
_SEX: Mapping[str, str] = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
_IMPRESSION: Final = ("19005-8", "Radiology Imaging study [Impression] (narrative)", "LN")
_STUDY: Final = ("113014", "DICOM Study", "DCM")
_SITE: Final = ("363698007", "Finding site", "SCT")
_AI: Final = "Made by an algorithm (AI); see the status of each result for whether a person verified it."
_CLOCK_LENGTH = 10


@dataclass(frozen=True, slots=True)
class Parties:
    """Who sends, and who receives."""

    sender: str
    """MSH-4, our facility: the AE title."""
    receiver: str
    """`APPLICATION|FACILITY`: MSH-5 and MSH-6; may be empty."""


def control_id(job_id: str, destination: str) -> str:
    """Return MSH-10: the same for every try, so that a receiver can drop what it has."""
    digest = hashlib.sha256(f"{job_id}|{destination}".encode()).digest()
    return base64.b32encode(digest).decode()[:CONTROL_ID_LENGTH]


def oru(report: Report, parties: Parties, identity: str, now: datetime) -> bytes | None:
    """Return the message; None where the job made no report.

    Parameters
    ----------
    identity
        MSH-10.
    now
        When the message is made.
    """
    reports = report.of_type("DiagnosticReport")
    if not reports:
        return None
    main = reports[0]
    made = _time(str(now.isoformat(timespec="seconds")))
    application, _, facility = parties.receiver.partition("|")
    study = next(iter(report.of_type("ImagingStudy")), {})
    segments = [
        segment(
            *("MSH", "HYBRIDMED", parties.sender, application, facility, made, ""),
            ("ORU", "R01", "ORU_R01"),
            *(identity, "P", "2.5.1", "", "", "AL", "NE", "", "UNICODE UTF-8"),
        ),
        _patient(next(iter(report.of_type("Patient")), {})),
        _request(main, study),
        segment("NTE", "1", "L", _AI),
    ]
    observed = _observed(main, report, study)
    segments += [segment("OBX", str(number), *fields) for number, fields in enumerate(observed, start=1)]
    return message(segments)


def _patient(patient: Json) -> str:
    identifiers: list[tuple[str, ...]] = [
        (each["value"], "", "", _assigner(each), _type(each))
        for each in patient.get("identifier", ())
        if "value" in each
    ]
    # Without a name PID-5 still has to be there (3.4.2): an empty name of type 'unspecified'.
    names = [_name(each) for each in patient.get("name", ())] or [("", "", "", "", "", "", "U")]
    birth = patient.get("birthDate", "").replace("-", "")
    sex = _SEX.get(patient.get("gender", ""), "")
    return segment("PID", "1", "", identifiers or "", "", names, "", birth, sex)


def _name(name: Json) -> tuple[str, ...]:
    """Return a HumanName as XPN."""
    given = [*filter(None, name.get("given", ())), ""]  # null where an extension says why there is none
    middle = " ".join(given[1:]).strip()
    return (name.get("family", ""), given[0], middle, _first(name, "suffix"), _first(name, "prefix"), "", "L")


def _request(report: Json, study: Json) -> str:
    accession = next((each["value"] for each in study.get("identifier", ()) if _type(each) == "ACSN"), "")
    interpreter = next((each.get("display", "") for each in report.get("resultsInterpreter", ())), "")
    fields: dict[int, Value] = {
        1: "1",
        3: (report["id"], "HYBRIDMED"),
        4: _coded(report["code"]),
        7: _time(report.get("effectiveDateTime", "")),
        18: accession,
        22: _time(report.get("issued", "")),
        24: "RAD",
        25: _STATUSES.get(report["status"], "P"),
        32: interpreter,
    }
    return segment("OBR", *(fields.get(number, "") for number in range(1, max(fields) + 1)))


def _observed(main: Json, report: Report, study: Json) -> Iterator[Sequence[Value]]:
    """Yield the fields of each OBX after the first."""
    when = _time(main.get("effectiveDateTime", ""))
    status = _OBSERVED.get(main["status"], "P")
    if "conclusion" in main:
        yield _obx("TX", _IMPRESSION, "", main["conclusion"], "", status, when)
    uids = [each["value"] for each in study.get("identifier", ()) if each.get("system") == "urn:dicom:uid"]
    for uid in uids:
        yield _obx("HD", _STUDY, "", ("", uid.removeprefix("urn:oid:"), "ISO"), "", "F", when)
    for number, each in enumerate(report.of_type("Observation"), start=1):
        yield from _observation(each, str(number))


def _observation(content: Json, group: str) -> Iterator[Sequence[Value]]:
    status, when = _OBSERVED.get(content["status"], "P"), _time(content.get("effectiveDateTime", ""))
    code = _coded(content["code"])
    has_value = "valueQuantity" in content or "valueCodeableConcept" in content
    if "bodySite" in content and (has_value or "dataAbsentReason" in content):
        yield _obx("CWE", _SITE, group, _coded(content["bodySite"]), "", status, when)
    if "valueCodeableConcept" in content:
        yield _obx("CWE", code, group, _coded(content["valueCodeableConcept"]), "", status, when)
    elif "valueQuantity" in content:
        yield _quantity(code, group, content["valueQuantity"], status, when)
    elif "dataAbsentReason" in content:
        reason = content["dataAbsentReason"]
        text = reason.get("text") or next((each["code"] for each in reason.get("coding", ()) if "code" in each), "")
        yield _obx("TX", code, group, text, "", status if status == "W" else "X", when)
    for component in content.get("component", ()):
        if "valueQuantity" in component:
            yield _quantity(_coded(component["code"]), group, component["valueQuantity"], status, when)
        elif "valueString" in component:
            yield _obx("TX", _coded(component["code"]), group, component["valueString"], "", status, when)


def _quantity(code: Value, group: str, quantity: Json, status: str, when: str) -> Sequence[Value]:
    unit = (quantity.get("code", ""), quantity.get("unit", ""), _system(quantity.get("system", "")))
    return _obx("NM", code, group, _number(quantity["value"]), unit, status, when)


def _obx(  # noqa: PLR0913, PLR0917 # the fields of a segment, in their order
    kind: str, code: Value, group: str, value: Value, unit: Value, status: str, when: str
) -> Sequence[Value]:
    return [kind, code, group, value, unit, "", "", "", "", status, "", "", when]


def _coded(concept: Json) -> tuple[str, ...]:
    """Return a CodeableConcept as CE or CWE: the first two codings, and the text where there is none."""
    parts: list[str] = []
    for coding in concept.get("coding", ())[:2]:
        parts += [coding.get("code", ""), coding.get("display", ""), _system(coding.get("system", ""))]
    return tuple(parts) if parts else ("", concept.get("text", ""))


def _system(url: str) -> str:
    return _SYSTEMS.get(url, _OWN) if url else ""


def _assigner(identifier: Json) -> str:
    return str(identifier.get("assigner", {}).get("display") or identifier.get("system", "").removeprefix("urn:oid:"))


def _type(identifier: Json) -> str:
    return str(next((each.get("code", "") for each in identifier.get("type", {}).get("coding", ())), ""))


def _first(name: Json, part: str) -> str:
    return str(next(iter(name.get(part, ())), ""))


def _number(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _time(text: str) -> str:
    """Return a FHIR date, time or instant as TS (2.A.77): `20260302130000.25+0100`."""
    if len(text) <= _CLOCK_LENGTH:
        return text.replace("-", "")
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    fraction = f".{moment.microsecond // 1000:03d}" if moment.microsecond else ""
    return moment.strftime("%Y%m%d%H%M%S") + fraction + moment.strftime("%z")
