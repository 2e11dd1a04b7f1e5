"""Back from a pseudonym to the patient: those of all that is stored are made anew; no table of them is kept."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from gateway.errors import InvalidQueryError
from gateway.exchange.deidentified import Pseudonyms, other_id, patient_key
from gateway.privacy.deidentify import issuer_name
from gateway.store.tables import artefact, fhir_resource, instance, series, study

Of = Literal["patient", "study", "series", "instance", "resource"]
_PATIENT = re.compile(r"[0-9A-F]{20}")
_UID = re.compile(r"2\.25\.\d{1,39}")
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a pseudonym stands for."""

    of: Of
    """What has the pseudonym."""
    original: str
    """Patient id, UID, or type and id of a FHIR resource."""
    patient_id: str
    patient_id_issuer: str
    study_instance_uids: tuple[str, ...]
    """Of the patient; of a UID, the one study that it belongs to."""


@dataclass(frozen=True, slots=True)
class _Match:
    of: Of
    original: str
    study_instance_uids: tuple[str, ...]


def identify(connection: Connection, pseudonym: str, pseudonyms: Pseudonyms) -> Identity | None:
    """Return whom a pseudonym stands for; None where nothing that is stored has it.

    Parameters
    ----------
    pseudonym
        20 digits and letters of a patient, a UID `2.25.…` of a study, series or instance, the id of a FHIR resource.

    Raises
    ------
    InvalidQueryError
        It is none of these.
    """
    text = pseudonym.strip().removeprefix("urn:oid:").removeprefix("urn:uuid:")
    if _PATIENT.fullmatch(text.upper()):
        found = _by_patient(connection, text.upper(), pseudonyms)
    elif _UID.fullmatch(text):
        found = next((each for each in _dicom(connection) if pseudonyms.uid(each.original) == text), None)
    else:
        found = _by_resource(connection, _resource_id(text), pseudonyms)
    if found is None:
        return None
    query = sa.select(study.c.patient_id, study.c.patient_id_issuer)
    row = connection.execute(query.where(study.c.study_instance_uid.in_(found.study_instance_uids))).first()
    number, issuer = ("", "") if row is None else (row.patient_id, row.patient_id_issuer)
    return Identity(found.of, found.original, number, issuer, found.study_instance_uids)


def _resource_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        expected = "20 digits and letters of a patient, a UID 2.25.…, or the id of a FHIR resource"
        raise InvalidQueryError(f"a pseudonym is {expected}") from None


def _by_patient(connection: Connection, wanted: str, pseudonyms: Pseudonyms) -> _Match | None:
    """Return the patient with a pseudonym: as in the images, else as others wrote it by FHIR."""
    query = sa.select(study.c.patient_id, study.c.patient_id_issuer, study.c.study_instance_uid)
    rows = [
        row
        for row in _rows(connection, query.order_by(study.c.study_instance_uid))
        if pseudonyms.patient(issuer_name(row.patient_id_issuer), row.patient_id or row.study_instance_uid) == wanted
    ]
    if rows:
        return _Match("patient", rows[0].patient_id, tuple(row.study_instance_uid for row in rows))
    for row in _resources(connection, "Patient"):
        patient = orjson.loads(row.body)
        issuer, number = patient_key(patient, "")
        if pseudonyms.patient(issuer, number) == wanted:
            return _Match("patient", number, _studies_with(connection, row.resource_id))
    return None


def _by_resource(connection: Connection, wanted: str, pseudonyms: Pseudonyms) -> _Match | None:
    for row in _resources(connection):
        if other_id(row.type, row.resource_id, pseudonyms) == wanted:
            uid = row.study_instance_uid
            uids = (uid,) if uid else _studies_with(connection, row.resource_id)
            return _Match("resource", f"{row.type}/{row.resource_id}", uids)
    return None


def _resources(connection: Connection, *types: str) -> Iterator[Row[Any]]:
    c = fhir_resource.c
    query = sa.select(c.type, c.resource_id, c.study_instance_uid, c.body).where(c.is_current)
    return _rows(connection, query.where(c.type.in_(types)) if types else query)


def _studies_with(connection: Connection, patient_resource_id: str) -> tuple[str, ...]:
    """Return the studies that FHIR says are of a Patient."""
    found = [
        row.study_instance_uid
        for row in _resources(connection, "ImagingStudy")
        if orjson.loads(row.body).get("subject", {}).get("reference") == f"Patient/{patient_resource_id}"
    ]
    return tuple(sorted(uid for uid in found if uid))


def _dicom(connection: Connection) -> Iterator[_Match]:
    """Yield all that has a UID, the little first: studies, series, results, images."""
    columns: tuple[tuple[Of, sa.Column[str], sa.Column[str]], ...] = (
        ("study", study.c.study_instance_uid, study.c.study_instance_uid),
        ("series", series.c.series_instance_uid, series.c.study_instance_uid),
        ("series", artefact.c.series_instance_uid, artefact.c.study_instance_uid),
        ("instance", artefact.c.sop_instance_uid, artefact.c.study_instance_uid),
        ("instance", instance.c.sop_instance_uid, instance.c.study_instance_uid),
    )
    for of, uid, study_uid in columns:
        query = sa.select(uid.label("original"), study_uid.label("study_uid")).where(uid.is_not(None))
        for row in _rows(connection, query):
            yield _Match(of, row.original, (row.study_uid,))


def _rows(connection: Connection, query: sa.Executable) -> Iterator[Row[Any]]:
    """Yield rows, a page in memory at a time."""
    with connection.execute(query, execution_options={"yield_per": _PAGE}) as result:
        yield from result
