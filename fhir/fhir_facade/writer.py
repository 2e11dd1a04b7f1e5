"""What clients write: Patient and ServiceRequest, inside of a transaction that the caller opens.

One request writes one resource, a Bundle of type transaction several; the rules are the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.demographics import Patients
from fhir_facade.index import index_entries
from fhir_facade.matching import Clock
from fhir_facade.permit import NotPermittedError, Permit
from fhir_facade.query import understand
from fhir_facade.refusal import BrokenError, DuplicateError, NotAllowedError, VersionConflictError
from fhir_facade.request import read_pairs
from fhir_facade.resource import Json, encode
from fhir_facade.search import run_search
from gateway.store.demographics import keep_written
from gateway.store.results import FhirVersion, lock_resources, write_resources
from gateway.store.tables import fhir_resource

_OURS = 2


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a resource."""

    body: bytes
    """As it now stands."""
    is_new: bool
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes for one caller."""

    patients: Patients
    permit: Permit
    source: str
    """Who writes, for the record."""
    base: str
    """Address under which the caller reached this server."""
    clock: Clock

    @property
    def now(self) -> datetime:
        """When it is written."""
        return self.clock.now

    @property
    def zone(self) -> tzinfo | None:
        """The site's zone."""
        return self.clock.zone

    def create_patient(self, connection: Connection, content: Json, condition: str) -> Written:
        """Create a Patient that is not known yet; its id follows from its first identifier.

        Parameters
        ----------
        condition
            `If-None-Exist`; empty: none.
        """
        self.require_patient("c")
        existing = self.existing(connection, "Patient", condition)
        if existing is not None:
            return Written(existing[1], is_new=False)
        resource_id = self.new_patient_id(connection, content)
        self.patients.lock(connection, resource_id)
        if current_version(connection, "Patient", resource_id) is not None:
            raise DuplicateError("there is a Patient with this identifier: use If-None-Exist, or PUT")
        elements = self.patients.write(connection, content | {"id": resource_id}, self.source, self.now)
        return Written(_stands(connection, "Patient", resource_id), is_new=True, warnings=_warnings(elements))

    def update_patient(self, connection: Connection, content: Json, expected: int | None) -> Written:
        """Update a Patient.

        Parameters
        ----------
        expected
            The version that `If-Match` names; None: any.
        """
        resource_id = content["id"]
        self.require_patient("u", resource_id)
        self.patients.lock(connection, resource_id)
        version = current_version(connection, "Patient", resource_id)
        if version is None:
            raise NotAllowedError("no such Patient, and ids are given by the server")
        if expected is not None and version != expected:
            raise VersionConflictError("the resource has another version by now")
        elements = self.patients.write(connection, content, self.source, self.now)
        if "identifier" in elements:
            # Raised within the transaction: nothing of it stays.
            raise BrokenError("identifier: that by which the images name the patient has to stay")
        return Written(_stands(connection, "Patient", resource_id), is_new=False, warnings=_warnings(elements))

    def create_order(self, connection: Connection, content: Json, condition: str) -> Written:
        """Create a ServiceRequest; its subject has to be a patient of this server."""
        self.permit.require("ServiceRequest", "c")
        existing = self.existing(connection, "ServiceRequest", condition)
        if existing is not None:
            return Written(existing[1], is_new=False)
        own = {name: value for name, value in content.items() if name != "meta"}
        own |= {"id": str(uuid.uuid4()), "subject": _subject(connection, content, self.base)}
        if self.permit.is_bound("ServiceRequest", "c") and own["subject"]["reference"] != self._own_patient:
            raise NotPermittedError("a caller that is bound to a patient orders for no others")
        version = FhirVersion("ServiceRequest", own["id"], None, encode(own), index_entries(own, self.zone))
        write_resources(connection, [version], self.now, job_id=None)
        keep_written(connection, "ServiceRequest", own["id"], version.body, self.source, self.now)
        return Written(_stands(connection, "ServiceRequest", own["id"]), is_new=True)

    def require_patient(self, permission: Any, resource_id: str | None = None) -> None:
        """Raise NotPermittedError unless a Patient may be created, or this one updated."""
        self.permit.require("Patient", permission)
        if self.permit.is_bound("Patient", permission) and (resource_id is None or resource_id != self.permit.patient):
            what = "creates no others" if resource_id is None else "updates no others"
            raise NotPermittedError(f"a caller that is bound to a patient {what}")

    def new_patient_id(self, connection: Connection, content: Json) -> str:
        """Return the id that a Patient gets; BrokenError where it has no identifier."""
        resource_id = self.patients.id_for(connection, content)
        if resource_id is None:
            raise BrokenError("identifier: a patient is known by one, and this has none")
        return resource_id

    def existing(self, connection: Connection, resource_type: str, condition: str) -> tuple[str, bytes] | None:
        """Return id and body of the one resource that a condition finds, None where there is none or no condition.

        Creators on condition wait for each other, so that of two with the same condition one finds the other's.
        """
        query = condition.strip().removeprefix("?")
        if not query:
            return None
        lock_resources(connection, [(resource_type, "if-none-exist")])
        search = understand([resource_type], [*read_pairs(query), ("_count", "2")], is_strict=True)
        found = run_search(connection, self.permit.narrow(search), self.clock).found
        if len(found) > 1:
            raise VersionConflictError("If-None-Exist finds more than one")
        return (found[0].resource_id, found[0].body) if found else None

    @property
    def _own_patient(self) -> str:
        return f"Patient/{self.permit.patient}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource of a transaction that writes."""

    method: str
    resource_type: str
    content: Json
    full_url: str = ""
    """By which other entries refer to it."""
    condition: str = ""
    """`If-None-Exist`."""
    expected: int | None = None
    """The version that `If-Match` names."""


@dataclass(slots=True)
class Transaction:
    """Several resources that are written together, or not at all: an error of one leaves nothing of any."""

    writer: Writer
    entries: Sequence[Entry]
    _addresses: dict[str, str] = field(default_factory=dict)

    def write(self, connection: Connection, tell: Callable[[int], None]) -> list[Written]:
        """Write all, in the order of the entries; references by `fullUrl` lead to what became of those entries.

        Parameters
        ----------
        tell
            Is told which entry is looked at, for errors.
        """
        self._lock(connection, tell)
        written: dict[int, Written] = {}
        order = sorted(range(len(self.entries)), key=lambda at: self.entries[at].resource_type != "Patient")
        for at in order:
            tell(at)
            written[at] = self._write(connection, self.entries[at])
        return [written[at] for at in range(len(self.entries))]

    def _lock(self, connection: Connection, tell: Callable[[int], None]) -> None:
        """Take all locks at once, in their order, and learn which id each Patient has or gets."""
        types = sorted({each.resource_type for each in self.entries if each.condition})
        lock_resources(connection, [(resource_type, "if-none-exist") for resource_type in types])
        ids: list[str] = []
        for at, entry in enumerate(self.entries):
            if entry.resource_type == "Patient":
                tell(at)
                ids.append(self._patient_id(connection, entry))
        if len(set(ids)) < len(ids):
            raise DuplicateError("two entries are the same Patient")
        self.writer.patients.lock(connection, *ids)

    def _patient_id(self, connection: Connection, entry: Entry) -> str:
        if entry.method == "PUT":
            resource_id: str = entry.content["id"]
        else:
            self.writer.require_patient("c")
            held = self.writer.existing(connection, "Patient", entry.condition)
            resource_id = held[0] if held is not None else self.writer.new_patient_id(connection, entry.content)
        if entry.full_url:
            self._addresses[entry.full_url] = f"Patient/{resource_id}"
        return resource_id

    def _write(self, connection: Connection, entry: Entry) -> Written:
        content = _readdressed(entry.content, self._addresses)
        if entry.resource_type == "ServiceRequest":
            return self.writer.create_order(connection, content, entry.condition)
        if entry.method == "PUT":
            return self.writer.update_patient(connection, content, entry.expected)
        return self.writer.create_patient(connection, content, entry.condition)


def current_version(connection: Connection, resource_type: str, resource_id: str) -> int | None:
    """Return the current version of a resource; None where there is none."""
    row = fhir_resource.c
    query = sa.select(row.version).where(row.type == resource_type, row.resource_id == resource_id, row.is_current)
    return connection.scalar(query)


def _stands(connection: Connection, resource_type: str, resource_id: str) -> bytes:
    row = fhir_resource.c
    query = sa.select(row.body).where(row.type == resource_type, row.resource_id == resource_id, row.is_current)
    body: bytes = connection.execute(query).scalar_one()
    return body


def _subject(connection: Connection, content: Json, base: str) -> Json:
    """Return the subject of an order, as a reference within this server; BrokenError where it is no patient of ours."""
    subject: Json = content["subject"]
    parts = subject.get("reference", "").removeprefix(f"{base}/").split("/")
    if len(parts) != _OURS or parts[0] != "Patient" or current_version(connection, "Patient", parts[1]) is None:
        raise BrokenError("subject: a reference to a Patient of this server is needed")
    return subject | {"reference": "/".join(parts)}


def _readdressed(element: Any, addresses: Mapping[str, str]) -> Any:
    if isinstance(element, list):
        return [_readdressed(each, addresses) for each in element]
    if not isinstance(element, dict):
        return element
    changed = {name: _readdressed(value, addresses) for name, value in element.items()}
    if isinstance(changed.get("reference"), str) and changed["reference"] in addresses:
        changed["reference"] = addresses[changed["reference"]]
    return changed


def _warnings(elements: Sequence[str]) -> list[str]:
    if not elements:
        return []
    return [f"differs from what the images say, and was flagged: {', '.join(elements)}"]
