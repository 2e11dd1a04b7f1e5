"""FHIR resources without the patient, for destinations whose rule says so.

Each type has a list of the elements that stay; whatever is not on it goes, elements that later versions of this program
write included. The patient keeps a pseudonym, sex and year of birth; days are shifted by one number for each patient,
so that intervals stay; ids and UIDs are replaced by others that follow from a secret, so that what is sent twice meets
itself and nothing leads back. What persons wrote is not sent: conclusions and notes name people.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.errors import ConfigurationError
from gateway.exchange.report import Json, Report
from gateway.once import write_once

PSEUDONYM_SYSTEM: Final = "urn:hybridmed:pseudonym"
KEY_FILE: Final = "pseudonym-key"
_SHORTEST_KEY = 16
_KEPT: Mapping[str, frozenset[str]] = {
    "Patient": frozenset({"gender"}),
    "ImagingStudy": frozenset(
        {"status", "modality", "subject", "started", "numberOfSeries", "numberOfInstances", "series"}
    ),
    "DiagnosticReport": frozenset(
        {"meta", "status", "category", "code", "subject", "effectiveDateTime", "issued", "result", "imagingStudy"}
        | {"conclusionCode"}
    ),
    "Observation": frozenset(
        {"meta", "status", "category", "code", "subject", "effectiveDateTime", "issued", "valueCodeableConcept"}
        | {"valueQuantity", "dataAbsentReason", "interpretation", "bodySite", "method", "device", "component"}
        | {"hasMember", "derivedFrom"}
    ),
    "Device": frozenset(
        {"status", "manufacturer", "deviceName", "modelNumber", "version", "type", "property", "identifier"}
    ),
}
_OF_SERIES = frozenset({"uid", "number", "modality", "numberOfInstances", "bodySite", "started"})
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(T.*)?")
_LONGEST_SHIFT_DAYS = 365


class Pseudonyms(Protocol):
    """What stands for a patient outside; the same for the same, for ever."""

    def patient(self, issuer: str, patient_id: str, /) -> str:
        """Return the pseudonym of a patient."""

    def uid(self, uid: str, /) -> str:
        """Return the UID that stands for a UID (PS3.5 B.2)."""

    def shift(self, issuer: str, patient_id: str, /) -> timedelta:
        """Return by how much a patient's times are shifted; whole days."""


@dataclass(frozen=True, slots=True)
class KeyedPseudonyms:
    """Pseudonyms that follow from a secret alone, with no table behind them.

    Parameters
    ----------
    key
        At least 16 bytes that nobody else knows.
    """

    key: bytes

    def patient(self, issuer: str, patient_id: str, /) -> str:
        """Return 20 digits and letters."""
        return self._digest("patient", issuer, patient_id).hex()[:20].upper()

    def uid(self, uid: str, /) -> str:
        """Return a UID of the root 2.25."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"

    def shift(self, issuer: str, patient_id: str, /) -> timedelta:
        """Return a shift of 1 to 365 days into the past."""
        number = int.from_bytes(self._digest("shift", issuer, patient_id)[:8], "big")
        return -timedelta(days=1 + number % _LONGEST_SHIFT_DAYS)

    def _digest(self, *parts: str) -> bytes:
        text = "".join(f"{len(part)}:{part}," for part in parts)
        return hmac.new(self.key, text.encode(), hashlib.sha256).digest()


def secret_key(data_dir: Path) -> bytes:
    """Return the installation's key for pseudonyms, made at the first call.

    The file `pseudonym-key` belongs into every backup: without it patients get other pseudonyms.

    Raises
    ------
    ConfigurationError
        The file holds no key.
    """
    path = data_dir / KEY_FILE
    if not path.exists():
        write_once(path, secrets.token_hex(32))
    return read_key(path)


def read_key(path: Path) -> bytes:
    """Return the key that a file holds; ConfigurationError where there is none."""
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: pseudonyms lead back by the key alone") from error
    if len(key) < _SHORTEST_KEY:
        raise ConfigurationError(f"{path} holds no key: restore it from a backup")
    return key


def deidentified(report: Report, pseudonyms: Pseudonyms) -> Report:
    """Return a report without the patient.

    Parameters
    ----------
    pseudonyms
        What stands for patients and UIDs.
    """
    patient = next(iter(report.of_type("Patient")), {})
    issuer, number = patient_key(patient, report.study_instance_uid)
    shift = pseudonyms.shift(issuer, number)
    names = {f"{each['resourceType']}/{each['id']}": _other_id(each, pseudonyms) for each in report.resources}
    rules = _Rules(pseudonyms, shift, names)
    resources = [rules.apply(each) for each in report.resources if each["resourceType"] in _KEPT]
    for each in resources:
        if each["resourceType"] == "Patient":
            each["identifier"] = [{"system": PSEUDONYM_SYSTEM, "value": pseudonyms.patient(issuer, number)}]
            if "birthDate" in patient:
                each["birthDate"] = patient["birthDate"][:4]
    return replace(report, study_instance_uid=pseudonyms.uid(report.study_instance_uid), resources=resources)


def patient_key(patient: Json, study_instance_uid: str) -> tuple[str, str]:
    """Return what a pseudonym follows from: issuer and number, the study's UID where there is no Patient."""
    identifier: Json = next(iter(patient.get("identifier", ())), {})
    issuer = identifier.get("system") or identifier.get("assigner", {}).get("display", "")
    return issuer, identifier.get("value") or patient.get("id", study_instance_uid)


def other_id(resource_type: str, resource_id: str, pseudonyms: Pseudonyms) -> str:
    """Return the id that stands for that of a resource."""
    return str(uuid.UUID(int=int(pseudonyms.uid(f"{resource_type}/{resource_id}").rpartition(".")[2])))


def _other_id(content: Json, pseudonyms: Pseudonyms) -> str:
    if content["resourceType"] == "Device":
        return str(content["id"])  # of a program, not of a person
    return other_id(content["resourceType"], content["id"], pseudonyms)


@dataclass(frozen=True, slots=True)
class _Rules:
    pseudonyms: Pseudonyms
    shift: timedelta
    names: Mapping[str, str]

    def apply(self, content: Json) -> Json:
        resource_type = content["resourceType"]
        kept = {name: self._value(name, value) for name, value in content.items() if name in _KEPT[resource_type]}
        head: Json = {"resourceType": resource_type, "id": self.names[f"{resource_type}/{content['id']}"]}
        if "meta" in kept:
            kept["meta"] = {name: value for name, value in content["meta"].items() if name == "security"}
        if "series" in kept:
            kept["series"] = [self._series(each) for each in content["series"]]
        if resource_type == "ImagingStudy":
            uids = [each["value"] for each in content.get("identifier", ()) if each.get("system") == "urn:dicom:uid"]
            values = [f"urn:oid:{self.pseudonyms.uid(uid.removeprefix('urn:oid:'))}" for uid in uids]
            kept["identifier"] = [{"system": "urn:dicom:uid", "value": value} for value in values]
        return head | {name: value for name, value in kept.items() if value not in ([], {}, None)}

    def _series(self, series: Json) -> Json:
        kept = {name: value for name, value in series.items() if name in _OF_SERIES}
        kept["uid"] = self.pseudonyms.uid(kept["uid"])
        return kept | ({"started": self._moved(kept["started"])} if "started" in kept else {})

    def _value(self, name: str, value: Any) -> Any:
        if name in {"effectiveDateTime", "issued", "started"}:
            return self._moved(value)
        return self._referring(value)

    def _referring(self, value: Any) -> Any:
        """Return an element with references to what is sent alone, and without their displays."""
        if isinstance(value, list):
            return [each for each in map(self._referring, value) if each is not None]
        if not isinstance(value, dict):
            return value
        if "reference" in value or value.get("type") == "DocumentReference":
            resource_type, _, _ = value.get("reference", "").partition("/")
            other = self.names.get(value.get("reference", ""))
            return {"reference": f"{resource_type}/{other}"} if other and resource_type in _KEPT else None
        return {
            name: each
            for name, each in ((name, self._referring(each)) for name, each in value.items())
            if each is not None
        }

    def _moved(self, text: str) -> str | None:
        """Return a date or a time shifted; None for a year or month alone."""
        match = _DATE.fullmatch(text)
        if match is None:
            return None
        moment: Callable[[str], date] = datetime.fromisoformat if match[2] else date.fromisoformat
        moved = moment(text.replace("Z", "+00:00")) + self.shift
        if not isinstance(moved, datetime):
            return moved.isoformat()
        return moved.isoformat(timespec="milliseconds" if moved.microsecond else "seconds")
