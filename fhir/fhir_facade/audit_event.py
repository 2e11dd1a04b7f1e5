"""An event of the audit trail -> AuditEvent."""

from __future__ import annotations

import base64
import uuid
from datetime import tzinfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.identity import ResourceIds
from fhir_facade.index import index_entries
from fhir_facade.patient import patient_id
from fhir_facade.resource import Json, clean, encode, present, reference
from gateway.audit.codes import Code
from gateway.audit.dicom_xml import EVENT_IDS, AuditSource, address_kind
from gateway.audit.event import AuditEvent, Entity, Participant
from gateway.errors import NotFoundError
from gateway.store.results import FhirVersion
from gateway.store.studies import get_study
from gateway.store.tables import fhir_resource

_SYSTEMS = {
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RFC-3881": "http://terminology.hl7.org/CodeSystem/audit-entity-type",
    "99HYBRIDMED": "urn:oid:2.25.245612083157210983477196421370851201394",
}
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_ROLES = {
    "patient": ("1", "1", "Patient"),
    "study": ("2", "3", "Report"),
    "query": ("2", "24", "Query"),
    "search": ("2", "24", "Query"),
    "node": ("2", None, ""),
    "resource": ("2", "4", "Domain Resource"),
    "audit-log": ("2", "13", "Security Resource"),
}
_TYPES = {"1": "Person", "2": "System Object"}


class AuditEventRenderer:
    """Makes the resources.

    Parameters
    ----------
    ids
        Of the installation.
    source
        Who reports.
    zone
        The site's, for dates without offset.
    """

    def __init__(self, ids: ResourceIds, source: AuditSource, zone: tzinfo | None = None) -> None:
        self._ids = ids
        self._source = source
        self._zone = zone

    def __call__(self, connection: Connection, event: AuditEvent) -> FhirVersion:
        """Return the resource of an event, with references to the Patient and the ImagingStudy that are served."""
        patient = self._patient(connection, event)
        content = present(
            {
                "resourceType": "AuditEvent",
                "id": str(uuid.UUID(event.id)),
                "type": _coding(EVENT_IDS[event.kind]),
                "subtype": [_coding(each) for each in event.types],
                "action": event.action,
                "recorded": event.recorded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "outcome": str(event.outcome),
                "outcomeDesc": clean(event.reason),
                "agent": [_agent(each) for each in event.participants],
                "source": self._reporting(),
                "entity": [self._entity(each, patient) for each in event.entities],
            }
        )
        entries = index_entries(content, self._zone)
        return FhirVersion("AuditEvent", content["id"], event.first("study"), encode(content), entries)

    def _reporting(self) -> Json:
        kind = {"system": _SOURCE_TYPE, "code": "4", "display": "Application Server"}
        return present(
            {
                "site": clean(self._source.enterprise_site),
                "observer": {"display": clean(self._source.id)},
                "type": [kind],
            }
        )

    def _patient(self, connection: Connection, event: AuditEvent) -> str | None:
        """Return the id of the Patient that the study's results name; None where none is served."""
        uid = event.first("study")
        if uid is None:
            return None
        try:
            found = patient_id(get_study(connection, uid), self._ids)
        except NotFoundError:
            return None
        query = sa.select(fhir_resource.c.id).where(
            fhir_resource.c.type == "Patient", fhir_resource.c.resource_id == found
        )
        return None if connection.scalar(query.limit(1)) is None else found

    def _entity(self, one: Entity, patient: str | None) -> Json:
        kind, role, meaning = _ROLES[one.kind]
        entity = {
            "what": self._what(one, patient),
            "type": {"system": _ENTITY_TYPE, "code": kind, "display": _TYPES[kind]},
            "role": {"system": _OBJECT_ROLE, "code": role, "display": meaning} if role else None,
        }
        if one.kind == "query":
            return present({**entity, "query": one.query})
        if one.kind == "search":
            return present({**entity, "query": base64.b64encode(one.query.encode()).decode()})
        details = [{"type": f"SOPClass {uid}", "valueString": str(count)} for uid, count in one.sop_classes]
        return present({**entity, "detail": details})

    def _what(self, one: Entity, patient: str | None) -> Json:
        if one.kind == "patient":
            named = {"identifier": {"value": clean(one.id)}}
            return named if patient is None else {**reference("Patient", patient), **named}
        if one.kind == "study":
            return {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{clean(one.id)}"}}
        if one.kind == "resource" and one.id.count("/") == 1 and one.id[:1].isupper():
            return {"reference": clean(one.id)}
        return {"display": clean(one.id) or "-"}


def _agent(one: Participant) -> Json:
    role = {"coding": [_coding(one.role)]} if one.role is not None else None
    network = {"address": clean(one.address), "type": address_kind(one.address)} if one.address else None
    return present(
        {
            "type": role,
            "who": {"identifier": {"value": clean(one.user_id) or "-"}, "display": clean(one.user_id) or "-"},
            "altId": clean(one.other_id),
            "requestor": one.is_requestor,
            "network": network,
        }
    )


def _coding(code: Code) -> Json:
    return {"system": _SYSTEMS[code.scheme], "code": code.value, "display": code.meaning}
