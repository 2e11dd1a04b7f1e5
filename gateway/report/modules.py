"""The source's patient, study and request attributes, copied byte for byte.

A value that is wrong in the source (a birth date with letters, a name with five components, text in another character
set than declared) stays as it is: a PACS matches results to studies by these attributes, and correcting them would
tear the two apart. Only what has no valid form, a reference without its UID, is left out.
"""

from __future__ import annotations

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import VR

_PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence",
    "GroupOfPatientsIdentificationSequence",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar",
    "PatientAlternativeCalendar",
    "PatientSex",
    "QualityControlSubject",
    "ReferencedPatientSequence",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
)
_STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence",
    "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence",
    "RequestingServiceCodeSequence",
    "ReferencedStudySequence",
    "ProcedureCodeSequence",
    "ReasonForPerformedProcedureCodeSequence",
)
_PATIENT_STUDY = (
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientBodyMassIndex",
    "PatientSizeCodeSequence",
    "MedicalAlerts",
    "Allergies",
    "SmokingStatus",
    "PregnancyStatus",
    "LastMenstrualDate",
    "PatientState",
    "Occupation",
    "AdditionalPatientHistory",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID",
    "IssuerOfServiceEpisodeIDSequence",
    "ServiceEpisodeDescription",
    "PatientSexNeutered",
    "ReasonForVisit",
    "ReasonForVisitCodeSequence",
)
_COMMON = ("SpecificCharacterSet", "TimezoneOffsetFromUTC", "SeriesDate", "SeriesTime")
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_REFERENCES = frozenset({Tag(0x0008, 0x1110), Tag(0x0008, 0x1120)})
"""Referenced Study and Referenced Patient Sequence: type 3 with type 1 content (PS3.3 table 10-11)."""
_TRIAL_GROUP = 0x0012
_TRIAL_SERIES = frozenset({Tag(0x0012, 0x0060), Tag(0x0012, 0x0071), Tag(0x0012, 0x0072), Tag(0x0012, 0x0073)})
_BINARY = frozenset({VR.US, VR.SS, VR.UL, VR.SL, VR.FL, VR.FD, VR.AT, VR.UV, VR.SV})
_ORDER = (
    "RequestedProcedureID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "ReasonForTheRequestedProcedure",
    "ReasonForRequestedProcedureCodeSequence",
)


def put_source_modules(source: Dataset, target: Dataset) -> None:
    """Copy patient, study, clinical trial and series time attributes (PS3.3 C.7.1, C.7.2) from `source`.

    What `target` held of them before is removed; type 2 attributes that the source lacks become empty.
    """
    for tag in _copied_tags(source):
        if tag in target:
            del target[tag]
        if tag in source and not (tag in _REFERENCES and _is_broken_reference(source[tag])):
            target[tag] = _verbatim(source, tag)
    for keyword in _TYPE_2:
        if keyword not in target:
            setattr(target, keyword, None)


def put_request_attributes(source: Dataset, target: Dataset) -> None:
    """Copy the Request Attributes Sequence (PS3.3 table 10-9) of an image series."""
    tag = _tag("RequestAttributesSequence")
    if source.get("RequestAttributesSequence"):
        target[tag] = _verbatim(source, tag)


def referenced_requests(source: Dataset) -> list[Dataset]:
    """Return the items of an SR's Referenced Request Sequence (PS3.3 table C.17-2), one per request of the source."""
    return [_request(source, item) for item in source.get("RequestAttributesSequence") or ()]


def _request(source: Dataset, attributes: Dataset) -> Dataset:
    request = Dataset()
    for keyword in _ORDER:
        holder = source if keyword not in attributes and keyword.endswith(("Number", "NumberSequence")) else attributes
        if keyword in holder:
            request[_tag(keyword)] = _verbatim(holder, _tag(keyword))
    for keyword in (
        "AccessionNumber",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "RequestedProcedureID",
        "RequestedProcedureDescription",
    ):
        if keyword not in request:
            setattr(request, keyword, None)
    if "RequestedProcedureCodeSequence" not in request:
        request.RequestedProcedureCodeSequence = []
    request.ReferencedStudySequence = []
    request[_tag("StudyInstanceUID")] = _verbatim(source, _tag("StudyInstanceUID"))
    return request


def _copied_tags(source: Dataset) -> list[BaseTag]:
    trial = [tag for tag in sorted(source.keys()) if tag.group == _TRIAL_GROUP and tag not in _TRIAL_SERIES]
    return [_tag(keyword) for keyword in (*_COMMON, *_PATIENT, *_STUDY, *_PATIENT_STUDY)] + trial


def _tag(keyword: str) -> BaseTag:
    number = tag_for_keyword(keyword)
    if number is None:
        raise ValueError(f"unknown DICOM keyword {keyword}")
    return Tag(number)


def _is_broken_reference(element: DataElement) -> bool:
    return any(not (i.get("ReferencedSOPClassUID") and i.get("ReferencedSOPInstanceUID")) for i in element.value or ())


def _verbatim(source: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    """Return one element with its bytes as they were read.

    Text travels undecoded: GB18030 and ISO 2022 values hold bytes that look like a backslash, and values outside
    the declared character set would be lost by decoding. Numbers are converted, for their byte order may change.
    """
    raw = source.get_item(tag)
    if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
        vr = raw.VR if raw.VR not in (None, VR.UN) else dictionary_VR(tag)
        if vr not in _BINARY and vr != VR.SQ:
            pad = b"\x00" if vr == VR.UI else b" "
            value = raw.value + pad * (len(raw.value) % 2)
            return RawDataElement(tag, vr, len(value), value, 0, False, True)
    element = source[tag]
    if element.VR != VR.SQ:
        return element
    return DataElement(tag, VR.SQ, ItemSequence([_verbatim_item(item) for item in element.value or ()]))


def _verbatim_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for tag in list(item.keys()):
        copy[tag] = _verbatim(item, tag)
    return copy
