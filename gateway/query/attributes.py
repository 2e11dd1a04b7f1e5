"""The attributes that can be asked for and returned (PS3.4 C.6, PS3.18 table 10.6.1-5), level by level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
LEVELS: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of one level."""

    tag: int
    keyword: str
    vr: str
    level: Level
    column: str | None = None
    """Of `study`, `series` or `instance`; None: computed."""
    is_key: bool = True
    """Whether a query may match it."""
    sequence: int | None = None
    """The tag of the sequence whose item holds it."""


MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY = 0x00080061, 0x00080062
STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES = 0x00201206, 0x00201208, 0x00201209
PATIENT_STUDIES = 0x00201200
INSTANCE_AVAILABILITY = 0x00080056
REQUEST_ATTRIBUTES = 0x00400275
STUDY_UID, SERIES_UID, SOP_INSTANCE_UID = 0x0020000D, 0x0020000E, 0x00080018
PATIENT_ID = 0x00100020

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(0x00100010, "PatientName", "PN", "PATIENT", "patient_name"),
    Attribute(PATIENT_ID, "PatientID", "LO", "PATIENT", "patient_id"),
    Attribute(0x00100021, "IssuerOfPatientID", "LO", "PATIENT", "patient_id_issuer"),
    Attribute(0x00100030, "PatientBirthDate", "DA", "PATIENT", "patient_birth_date"),
    Attribute(0x00100040, "PatientSex", "CS", "PATIENT", "patient_sex"),
    Attribute(PATIENT_STUDIES, "NumberOfPatientRelatedStudies", "IS", "PATIENT", is_key=False),
    Attribute(0x00080020, "StudyDate", "DA", "STUDY", "study_date"),
    Attribute(0x00080030, "StudyTime", "TM", "STUDY", "study_time"),
    Attribute(0x00080050, "AccessionNumber", "SH", "STUDY", "accession_number"),
    Attribute(MODALITIES_IN_STUDY, "ModalitiesInStudy", "CS", "STUDY"),
    Attribute(SOP_CLASSES_IN_STUDY, "SOPClassesInStudy", "UI", "STUDY"),
    Attribute(0x00080090, "ReferringPhysicianName", "PN", "STUDY", "referring_physician"),
    Attribute(0x00080201, "TimezoneOffsetFromUTC", "SH", "STUDY", "timezone_offset", is_key=False),
    Attribute(0x00081030, "StudyDescription", "LO", "STUDY", "study_description"),
    Attribute(STUDY_UID, "StudyInstanceUID", "UI", "STUDY", "study_instance_uid"),
    Attribute(0x00200010, "StudyID", "SH", "STUDY", "study_id"),
    Attribute(STUDY_SERIES, "NumberOfStudyRelatedSeries", "IS", "STUDY", is_key=False),
    Attribute(STUDY_INSTANCES, "NumberOfStudyRelatedInstances", "IS", "STUDY", is_key=False),
    Attribute(0x00080060, "Modality", "CS", "SERIES", "modality"),
    Attribute(0x00080021, "SeriesDate", "DA", "SERIES", "series_date"),
    Attribute(0x00080031, "SeriesTime", "TM", "SERIES", "series_time"),
    Attribute(0x0008103E, "SeriesDescription", "LO", "SERIES", "series_description"),
    Attribute(0x00180015, "BodyPartExamined", "CS", "SERIES", "body_part"),
    Attribute(SERIES_UID, "SeriesInstanceUID", "UI", "SERIES", "series_instance_uid"),
    Attribute(0x00200011, "SeriesNumber", "IS", "SERIES", "series_number"),
    Attribute(SERIES_INSTANCES, "NumberOfSeriesRelatedInstances", "IS", "SERIES", is_key=False),
    Attribute(0x00400244, "PerformedProcedureStepStartDate", "DA", "SERIES", "performed_date"),
    Attribute(0x00400245, "PerformedProcedureStepStartTime", "TM", "SERIES", "performed_time"),
    Attribute(0x00400009, "ScheduledProcedureStepID", "SH", "SERIES", "scheduled_step_id", sequence=REQUEST_ATTRIBUTES),
    Attribute(
        0x00401001, "RequestedProcedureID", "SH", "SERIES", "requested_procedure_id", sequence=REQUEST_ATTRIBUTES
    ),
    Attribute(0x00080016, "SOPClassUID", "UI", "IMAGE", "sop_class_uid"),
    Attribute(SOP_INSTANCE_UID, "SOPInstanceUID", "UI", "IMAGE", "sop_instance_uid"),
    Attribute(0x00083002, "AvailableTransferSyntaxUID", "UI", "IMAGE", "transfer_syntax_uid", is_key=False),
    Attribute(0x00200013, "InstanceNumber", "IS", "IMAGE", "instance_number"),
    Attribute(0x00280008, "NumberOfFrames", "IS", "IMAGE", "number_of_frames"),
    Attribute(0x00280010, "Rows", "US", "IMAGE", "rows"),
    Attribute(0x00280011, "Columns", "US", "IMAGE", "columns"),
)
BY_TAG: Mapping[int, Attribute] = {each.tag: each for each in ATTRIBUTES}


def levels_down_to(level: Level) -> tuple[Level, ...]:
    """Return a level and those above it."""
    return LEVELS[: LEVELS.index(level) + 1]


def matching_tags(level: Level) -> frozenset[int]:
    """Return the tags that a query of this level can match: those of the level and of the levels above it.

    What lies in Request Attributes Sequence (0040,0275) is given by its own tag.
    """
    return frozenset(each.tag for each in ATTRIBUTES if each.is_key and each.level in levels_down_to(level))


def return_tags(level: Level) -> frozenset[int]:
    """Return the tags that a query of this level can return; sequences by the tag of the sequence."""
    known = {each.sequence or each.tag for each in ATTRIBUTES if each.level in levels_down_to(level)}
    return frozenset(known | ({INSTANCE_AVAILABILITY} if level != "PATIENT" else set()))
