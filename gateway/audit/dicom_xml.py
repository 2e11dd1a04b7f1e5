"""An event as an audit message of DICOM (PS3.15 A.5.1, A.5.2)."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from xml.etree import ElementTree as ET  # only written here, never parsed

from gateway.audit import codes
from gateway.audit.codes import Code
from gateway.audit.event import AuditEvent, Entity, Kind, Participant

EVENT_IDS: dict[Kind, Code] = {
    kind: Code(value, "DCM", meaning)
    for kind, value, meaning in (
        (Kind.APPLICATION_ACTIVITY, "110100", "Application Activity"),
        (Kind.AUDIT_LOG_USED, "110101", "Audit Log Used"),
        (Kind.BEGIN_TRANSFERRING, "110102", "Begin Transferring DICOM Instances"),
        (Kind.INSTANCES_ACCESSED, "110103", "DICOM Instances Accessed"),
        (Kind.INSTANCES_TRANSFERRED, "110104", "DICOM Instances Transferred"),
        (Kind.STUDY_DELETED, "110105", "DICOM Study Deleted"),
        (Kind.EXPORT, "110106", "Export"),
        (Kind.IMPORT, "110107", "Import"),
        (Kind.PATIENT_RECORD, "110110", "Patient Record"),
        (Kind.PROCEDURE_RECORD, "110111", "Procedure Record"),
        (Kind.QUERY, "110112", "Query"),
        (Kind.SECURITY_ALERT, "110113", "Security Alert"),
        (Kind.USER_AUTHENTICATION, "110114", "User Authentication"),
    )
}
"""PS3.16 CID 400."""
_APPLICATION_SERVER = "4"
_MACHINE, _IP, _URI = "1", "2", "5"
_SHAPES: dict[str, tuple[str, str | None, Code]] = {
    "patient": ("1", "1", codes.PATIENT_NUMBER),
    "study": ("2", "3", codes.STUDY_UID),
    "query": ("2", "3", codes.SOP_CLASS_UID),
    "search": ("2", "24", codes.SEARCH_CRITERIA),
    "node": ("2", None, codes.NODE_ID),
    "resource": ("2", "4", codes.URI),
    "audit-log": ("2", "13", codes.URI),
}
"""Kind of entity -> Participant Object Type Code, its role, and what its id is."""


@dataclass(frozen=True, slots=True)
class AuditSource:
    """Who reports (PS3.15 A.5.2, Audit Source)."""

    id: str
    enterprise_site: str = ""


def audit_message(event: AuditEvent, source: AuditSource) -> bytes:
    """Return the message as XML in UTF-8."""
    root = ET.Element("AuditMessage")
    attributes = {
        "EventActionCode": event.action,
        "EventDateTime": event.recorded_at.isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": str(event.outcome),
    }
    identification = ET.SubElement(root, "EventIdentification", attributes)
    _coded(identification, "EventID", EVENT_IDS[event.kind])
    for kind in event.types:
        _coded(identification, "EventTypeCode", kind)
    if event.reason:
        ET.SubElement(identification, "EventOutcomeDescription").text = event.reason
    for participant in event.participants:
        _participant(root, participant)
    place = {"AuditEnterpriseSiteID": source.enterprise_site} if source.enterprise_site else {}
    reporting = ET.SubElement(root, "AuditSourceIdentification", {**place, "AuditSourceID": source.id})
    ET.SubElement(reporting, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for entity in event.entities:
        _entity(root, entity, event)
    body: bytes = ET.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>' + body


def address_kind(address: str) -> str:
    """Return the Network Access Point Type Code of an address."""
    if "://" in address:
        return _URI
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return _MACHINE
    return _IP


def _coded(parent: ET.Element, name: str, code: Code) -> None:
    ET.SubElement(parent, name, {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})


def _participant(root: ET.Element, one: Participant) -> None:
    attributes = {"UserID": one.user_id, "UserIsRequestor": str(one.is_requestor).lower()}
    if one.other_id:
        attributes["AlternativeUserID"] = one.other_id
    if one.address:
        attributes |= {"NetworkAccessPointID": one.address, "NetworkAccessPointTypeCode": address_kind(one.address)}
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    if one.role is not None:
        _coded(element, "RoleIDCode", one.role)


def _entity(root: ET.Element, one: Entity, event: AuditEvent) -> None:
    type_code, role, id_type = _SHAPES[one.kind]
    attributes = {"ParticipantObjectID": one.id or "-", "ParticipantObjectTypeCode": type_code}
    if role is not None:
        attributes["ParticipantObjectTypeCodeRole"] = role
    if event.kind is Kind.STUDY_DELETED:
        attributes["ParticipantObjectDataLifeCycle"] = "15"
    element = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    _coded(element, "ParticipantObjectIDTypeCode", id_type)
    if one.kind == "query":
        ET.SubElement(element, "ParticipantObjectQuery").text = one.query  # base64 as it came
        _detail(element, "TransferSyntax", one.transfer_syntax_uid)
    elif one.kind == "search":
        ET.SubElement(element, "ParticipantObjectQuery").text = _base64(one.query)
    else:
        # The schema wants a name or a query. A patient's name stands in no message: the id is enough to find it.
        ET.SubElement(element, "ParticipantObjectName").text = "Security Audit Log" if one.kind == "audit-log" else ""
    if one.sop_classes or one.accession_number:
        _description(element, one)


def _description(parent: ET.Element, one: Entity) -> None:
    description = ET.SubElement(parent, "ParticipantObjectDescription")
    if one.accession_number:
        ET.SubElement(description, "Accession", {"Number": one.accession_number})
    for uid, count in one.sop_classes:
        ET.SubElement(description, "SOPClass", {"UID": uid, "NumberOfInstances": str(count)})


def _detail(parent: ET.Element, kind: str, value: str) -> None:
    ET.SubElement(parent, "ParticipantObjectDetail", {"type": kind, "value": _base64(value)})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")
