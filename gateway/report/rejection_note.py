"""A rejection note: a Key Object Selection that says which objects no longer count, and why (IHE RAD TF-2 4.66, IOCM).

Whoever keeps the objects hides or deletes them by it; the note itself stays and tells that there was something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

import gateway
from gateway.report.assignment import ObjectReference, zone
from gateway.report.characters import in_ascii, make_room
from gateway.report.content import coded, text_item
from gateway.report.evidence import by_series
from gateway.report.modules import put_source_modules, referenced_requests
from inference.findings import Code

QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
PATIENT_SAFETY = Code("113037", "DCM", "Rejected for Patient Safety Reasons")
WRONG_WORKLIST_ENTRY = Code("113038", "DCM", "Incorrect Modality Worklist Entry")
RETENTION_EXPIRED = Code("113039", "DCM", "Data Retention Policy Expired")
REASONS = {code.value: code for code in (QUALITY, PATIENT_SAFETY, WRONG_WORKLIST_ENTRY, RETENTION_EXPIRED)}
"""CID 7011 Rejection Codes by code value."""
_KEY_OBJECT_DESCRIPTION = Code("113012", "DCM", "Key Object Description")
_IMPLEMENTATION_UID = UID("2.25.233487516301424893301726311984532763945")
_SERIES_NUMBER = 99_001
"""Behind those of the results."""
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88."
"""SR documents, which have no pixels and are named as COMPOSITE; all others here are images."""
_NOT_IMAGES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
        "1.2.840.10008.5.1.4.1.1.104.2",  # Encapsulated CDA
        "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
        "1.2.840.10008.5.1.4.1.1.66",  # Raw Data
        "1.2.840.10008.5.1.4.1.1.66.1",  # Spatial Registration
        "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
    }
)


@dataclass(frozen=True, slots=True)
class NoteIdentity:
    """What a note is called."""

    series_instance_uid: str
    sop_instance_uid: str
    rejected_at: datetime
    """Aware; becomes content date and time, in the zone of the source's other times."""


def render_rejection_note(
    objects: Sequence[ObjectReference],
    code: Code,
    *,
    source: Dataset,
    identity: NoteIdentity,
    description: str = "",
) -> Dataset:
    """Return the note, ready for `dcmwrite(enforce_file_format=True)`.

    Parameters
    ----------
    objects
        What is rejected, of one study; at least one.
    code
        Of `REASONS`.
    source
        Header of an image or a report of the study; its patient and study attributes and requests are copied.
    identity
        UIDs and time.
    description
        Why, in words (Key Object Description); empty: none.

    Raises
    ------
    ValueError
        No object, or a code that is no reason for rejection.
    """
    if not objects or code.value not in REASONS:
        raise ValueError("a rejection note names at least one object, and a code of CID 7011")
    note = _document(objects, source, identity)
    note.ValueType = "CONTAINER"
    note.ConceptNameCodeSequence = [coded(code)]
    note.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    note.ContentTemplateSequence = [template]
    shown = description if make_room(note, [description]) else in_ascii(description)
    text = [text_item("CONTAINS", _KEY_OBJECT_DESCRIPTION, shown)] if shown else []
    note.ContentSequence = [*text, *(_reference(each) for each in objects)]
    note.file_meta = _meta(identity)
    return note


def _document(objects: Sequence[ObjectReference], source: Dataset, identity: NoteIdentity) -> Dataset:
    """Return all but the content tree (PS3.3 A.35.4)."""
    note = Dataset()
    put_source_modules(source, note)
    for keyword in ("SeriesDate", "SeriesTime"):
        note.pop(keyword, None)
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SOPInstanceUID = identity.sop_instance_uid
    note.SeriesInstanceUID = identity.series_instance_uid
    note.Modality = "KO"
    note.SeriesNumber = _SERIES_NUMBER
    note.SeriesDescription = "Rejection note"
    note.ReferencedPerformedProcedureStepSequence = []
    note.Manufacturer = "HybridMed Gateway contributors"
    note.ManufacturerModelName = "HybridMed Gateway"
    note.SoftwareVersions = gateway.__version__
    note.InstanceNumber = 1
    at = identity.rejected_at.astimezone(zone(note.get("TimezoneOffsetFromUTC")) or identity.rejected_at.tzinfo)
    for keyword in ("InstanceCreation", "Content"):
        setattr(note, f"{keyword}Date", at.strftime("%Y%m%d"))
        setattr(note, f"{keyword}Time", at.strftime("%H%M%S.%f"))
    requests = referenced_requests(source) or list(source.get("ReferencedRequestSequence") or ())
    if requests:
        note.ReferencedRequestSequence = requests
    note.CurrentRequestedProcedureEvidenceSequence = by_series(objects)
    return note


def _reference(each: ObjectReference) -> Dataset:
    target = Dataset()
    target.ReferencedSOPClassUID = each.sop_class_uid
    target.ReferencedSOPInstanceUID = each.sop_instance_uid
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    is_document = each.sop_class_uid.startswith(_DOCUMENTS) or each.sop_class_uid in _NOT_IMAGES
    item.ValueType = "COMPOSITE" if is_document else "IMAGE"
    item.ReferencedSOPSequence = [target]
    return item


def _meta(identity: NoteIdentity) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    meta.MediaStorageSOPInstanceUID = UID(identity.sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    meta.ImplementationVersionName = "HYBRIDMED"
    return meta
