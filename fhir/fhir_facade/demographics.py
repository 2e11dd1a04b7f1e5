"""A patient as others write it, beside what the images say.

The hospital's word stands in the Patient: it knows names and dates better than a modality. What the images say is
left as it is, in the studies and in all that is written into SR and SEG. Where the two differ, nothing is merged: the
Patient carries a tag, a Flag names the elements, and so does `hybridmed studies show`, until one of them comes to say
the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.identity import ResourceIds
from fhir_facade.imaging_study import imaging_study_id
from fhir_facade.index import index_entries
from fhir_facade.patient import patient_id, patient_resource
from fhir_facade.resource import Json, clean, encode, parse
from gateway.person_name import folded
from gateway.store.demographics import (
    DemographicIssue,
    find_written,
    issues_of_patient,
    keep_written,
    note_issue,
)
from gateway.store.results import FhirVersion, lock_resources, write_resources
from gateway.store.studies import StudyFilter, StudyRow, list_studies
from gateway.store.tables import fhir_resource, study

TAG: Final[Json] = {
    "system": "urn:hybridmed:demographics",
    "code": "mismatch",
    "display": "Differs from what the images say",
}
_ADMINISTRATIVE: Json = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/flag-category",
            "code": "admin",
            "display": "Administrative",
        }
    ]
}
_MOST_STUDIES = 1000


@dataclass(frozen=True, slots=True)
class Patients:
    """Writes patients.

    Parameters
    ----------
    ids
        The installation's ids.
    """

    ids: ResourceIds

    def lock(self, connection: Connection, *resource_ids: str) -> None:
        """Let all who write of these Patients wait for each other; before other locks, so that none circles."""
        flags = [("Flag", self._flag_id(each)) for each in resource_ids]
        lock_resources(connection, [*(("Patient", each) for each in resource_ids), *flags])

    def write(self, connection: Connection, content: Json, source: str, now: datetime) -> Sequence[str]:
        """Make this the current version of a Patient; return the names of the elements that the images contradict.

        Parameters
        ----------
        content
            Checked, with its id.
        source
            Who says so.
        """
        resource_id = content["id"]
        self.lock(connection, resource_id)
        for row in self.studies_of(connection, content):
            self._compare(connection, content, row, source, now)
        own = _own(content)
        keep_written(connection, "Patient", resource_id, encode(own), source, now)
        self._write_flagged(connection, own, now)
        return self._elements(connection, resource_id)

    def _write_flagged(self, connection: Connection, content: Json, now: datetime) -> None:
        found = self._flagged(connection, content)
        versions = [
            FhirVersion(each["resourceType"], each["id"], None, encode(each), index_entries(each, None))
            for each in found
        ]
        write_resources(connection, versions, now, job_id=None)

    def note_study(self, connection: Connection, uid: str, content: Json, source: str, now: datetime) -> bool:
        """Note what somebody says of a study, its accession number and status; False where there is no such study.

        Parameters
        ----------
        uid
            Study Instance UID.
        content
            An ImagingStudy, checked. Nothing of it is served: the images are here.
        """
        rows = list_studies(connection, StudyFilter(uids=(uid,)), limit=1)
        if not rows:
            return False
        resource_id = patient_id(rows[0], self.ids)
        self.lock(connection, resource_id)
        keep_written(connection, "ImagingStudy", imaging_study_id(rows[0], self.ids), encode(content), source, now)
        written = find_written(connection, "Patient", resource_id)
        patient = parse(written[0]) if written is not None else patient_resource(rows[0], self.ids)
        self._compare(connection, patient, rows[0], source, now)
        self._write_flagged(connection, patient, now)
        return True

    def beside_images(
        self, connection: Connection, contents: Iterable[Json], of_study: StudyRow, now: datetime
    ) -> Iterator[Json]:
        """Yield what is rendered of a study, its Patient as others wrote it where somebody did."""
        for content in contents:
            if content["resourceType"] != "Patient":
                yield content
                continue
            self.lock(connection, content["id"])
            written = find_written(connection, "Patient", content["id"])
            of_images = find_written(connection, "ImagingStudy", imaging_study_id(of_study, self.ids))
            said = written or of_images
            if said is None:
                yield content
                continue
            patient = content if written is None else parse(written[0])
            self._compare(connection, patient, of_study, said[1], now)
            yield from self._flagged(connection, patient)

    def id_for(self, connection: Connection, content: Json) -> str | None:
        """Return the id that a Patient has by any of its identifiers, or gets by the first; None without one."""
        known = [
            (_issuers(each), number)
            for each in content.get("identifier", ())
            if (number := clean(each.get("value", "")))
        ]
        for issuers, number in known:
            for row in _studies(connection, [number]):
                if clean(row.patient_id_issuer) in issuers:
                    return patient_id(row, self.ids)
        return self.ids.make("Patient", "id", known[0][0][0], known[0][1]) if known else None

    def studies_of(self, connection: Connection, content: Json) -> list[StudyRow]:
        """Return the studies whose images are of this Patient."""
        current = connection.scalar(
            sa.select(fhir_resource.c.body).where(
                fhir_resource.c.type == "Patient",
                fhir_resource.c.resource_id == content["id"],
                fhir_resource.c.is_current,
            )
        )
        stood = [] if current is None else parse(current).get("identifier", [])
        numbers = {each["value"] for each in (*content.get("identifier", ()), *stood) if each.get("value")}
        return [row for row in _studies(connection, sorted(numbers)) if patient_id(row, self.ids) == content["id"]]

    def _compare(self, connection: Connection, content: Json, row: StudyRow, source: str, now: datetime) -> None:
        elements = differing(content, patient_resource(row, self.ids))
        study_written = find_written(connection, "ImagingStudy", imaging_study_id(row, self.ids))
        if study_written is not None:
            elements += differing_study(parse(study_written[0]), row)
        note_issue(connection, DemographicIssue(row.study_instance_uid, content["id"], elements, source, now))

    def _flagged(self, connection: Connection, content: Json) -> list[Json]:
        """Return a Patient, tagged where studies differ from it, and the Flag that says so, or says no longer so."""
        elements = self._elements(connection, content["id"])
        patient = content
        if elements:
            meta = content.get("meta", {})
            patient = content | {"meta": meta | {"tag": [*meta.get("tag", ()), TAG]}}
        flag_id = self._flag_id(content["id"])
        is_known = connection.scalar(
            sa.select(fhir_resource.c.id).where(
                fhir_resource.c.type == "Flag", fhir_resource.c.resource_id == flag_id, fhir_resource.c.is_current
            )
        )
        if not elements and is_known is None:
            return [patient]
        return [patient, _flag(flag_id, content["id"], elements)]

    def _elements(self, connection: Connection, resource_id: str) -> list[str]:
        issues = issues_of_patient(connection, resource_id)
        return sorted({element for issue in issues for element in issue.elements})

    def _flag_id(self, resource_id: str) -> str:
        return self.ids.make("Flag", "demographics", resource_id)


def differing(written: Json, images: Json) -> list[str]:
    """Return the names of the elements in which both say something, and not the same."""
    names = [_name_key(each) for each in written.get("name", ())]
    shown = [_name_key(each) for each in images.get("name", ())]
    found = []
    if names and shown and not set(names) & set(shown):
        found.append("name")
    if {"gender"} <= written.keys() & images.keys() and written["gender"] != images["gender"] != "unknown":
        found.append("gender")
    days = written.get("birthDate", ""), images.get("birthDate", "")
    length = min(map(len, days))
    if length and days[0][:length] != days[1][:length]:
        found.append("birthDate")
    if not _holds(written, images):
        found.append("identifier")
    return found


def differing_study(written: Json, row: StudyRow) -> list[str]:
    """Return the names of the elements of a study in which both say something, and not the same."""
    found = []
    accessions = {
        clean(each.get("value", ""))
        for each in written.get("identifier", ())
        if any(coding.get("code") == "ACSN" for coding in each.get("type", {}).get("coding", ()))
    }
    own = clean(row.accession_number)
    if own and accessions and own not in accessions:
        found.append("accession")
    if written.get("status") in {"cancelled", "entered-in-error"}:
        found.append("status")
    return found


def _own(content: Json) -> Json:
    """Return a resource without what the server says in its meta."""
    meta = {name: value for name, value in content.get("meta", {}).items() if name in {"profile", "security"}}
    tags = [each for each in content.get("meta", {}).get("tag", ()) if each.get("system") != TAG["system"]]
    own = {name: value for name, value in content.items() if name != "meta"}
    meta |= {"tag": tags} if tags else {}
    return own | ({"meta": meta} if meta else {})


def _holds(written: Json, images: Json) -> bool:
    """Say whether the identifier of the images is among those that were written."""
    theirs = {(each.get("value"), issuer) for each in written.get("identifier", ()) for issuer in _issuers(each)}
    ours = [(each.get("value"), issuer) for each in images.get("identifier", ()) for issuer in _issuers(each)]
    return not ours or any(each in theirs for each in ours)


def _name_key(name: Json) -> tuple[str, str]:
    """Return a name without case and accents: family, and the first given name, since middle names come and go."""
    given = [*filter(None, name.get("given", ())), ""]
    return folded(name.get("family", "")), folded(str(given[0])).split(" ")[0]


def _issuers(identifier: Json) -> list[str]:
    """Return what an identifier's issuer may be called in the images, the likeliest first."""
    system = clean(identifier.get("system", ""))
    display = clean(identifier.get("assigner", {}).get("display", ""))
    texts = [display, system.removeprefix("urn:oid:"), system]
    return list(dict.fromkeys(text for text in texts if text)) or [""]


def _studies(connection: Connection, numbers: Sequence[str]) -> list[StudyRow]:
    query = sa.select(study.c.study_instance_uid).where(study.c.patient_id.in_(numbers)).limit(_MOST_STUDIES)
    uids = tuple(connection.scalars(query)) if numbers else ()
    return list_studies(connection, StudyFilter(uids=uids), limit=_MOST_STUDIES) if uids else []


def _flag(flag_id: str, resource_id: str, elements: Sequence[str]) -> Json:
    differs = f"Demographics differ from what the images say: {', '.join(elements)}"
    return {
        "resourceType": "Flag",
        "id": flag_id,
        "status": "active" if elements else "inactive",
        "category": [_ADMINISTRATIVE],
        "code": {"text": differs if elements else "Demographics are as the images say"},
        "subject": {"reference": f"Patient/{resource_id}"},
    }
