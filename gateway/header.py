"""The fields that are indexed, read from a data set's header; pixel data is never touched."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import _lru_cache_wrapper, cache, lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import sqlalchemy as sa

from gateway.charset import codecs_of, decode_text
from gateway.elements import DEFLATED, Elements, Encoding, inflated, read_elements
from gateway.errors import CannotUnderstandError
from gateway.store import tables

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH = 64
_PREAMBLE_LENGTH = 128
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")
_OLD_DATE = re.compile(r"^(\d{4})[.\-/](\d{2})[.\-/](\d{2})")  # ACR-NEMA wrote 1993.08.22
_INT32 = 1 << 31
_LONGEST_KEPT = 2048
"""Bytes of the values of a study or series whose fields are kept for the next instance."""

_SPECIFIC_CHARACTER_SET = 0x00080005
_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
_STUDY_DATE, _SERIES_DATE, _STUDY_TIME, _SERIES_TIME = 0x00080020, 0x00080021, 0x00080030, 0x00080031
_ACCESSION_NUMBER, _ACCESSION_ISSUER = 0x00080050, 0x00080051
_MODALITY, _REFERRING_PHYSICIAN, _TIMEZONE = 0x00080060, 0x00080090, 0x00080201
_STUDY_DESCRIPTION, _SERIES_DESCRIPTION = 0x00081030, 0x0008103E
_PATIENT_NAME, _PATIENT_ID, _PATIENT_ID_ISSUER = 0x00100010, 0x00100020, 0x00100021
_PATIENT_BIRTH_DATE, _PATIENT_SEX = 0x00100030, 0x00100040
_BODY_PART = 0x00180015
_STUDY_UID, _SERIES_UID, _STUDY_ID, _SERIES_NUMBER, _INSTANCE_NUMBER = (
    0x0020000D,
    0x0020000E,
    0x00200010,
    0x00200011,
    0x00200013,
)
_STUDY_INSTANCES = 0x00201208
_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
_PERFORMED_DATE, _PERFORMED_TIME, _REQUEST_ATTRIBUTES = 0x00400244, 0x00400245, 0x00400275
_SCHEDULED_STEP_ID, _REQUESTED_PROCEDURE_ID = 0x00400009, 0x00401001
_LOCAL_ENTITY, _UNIVERSAL_ENTITY = 0x00400031, 0x00400032
_OF_STUDY = (
    _SPECIFIC_CHARACTER_SET,
    *(_PATIENT_ID, _PATIENT_ID_ISSUER, _PATIENT_NAME, _PATIENT_BIRTH_DATE, _PATIENT_SEX),
    *(_ACCESSION_NUMBER, _ACCESSION_ISSUER),
    *(_STUDY_ID, _STUDY_DATE, _STUDY_TIME, _TIMEZONE, _STUDY_DESCRIPTION, _REFERRING_PHYSICIAN, _STUDY_INSTANCES),
)
_OF_SERIES = (
    _SPECIFIC_CHARACTER_SET,
    *(_MODALITY, _BODY_PART, _SERIES_DESCRIPTION, _SERIES_NUMBER, _SERIES_DATE, _SERIES_TIME),
    *(_PERFORMED_DATE, _PERFORMED_TIME, _REQUEST_ATTRIBUTES),
)
_OF_INSTANCE = (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_UID, _SERIES_UID, _INSTANCE_NUMBER, _FRAMES, _ROWS, _COLUMNS)
_WANTED = frozenset({*_OF_STUDY, *_OF_SERIES, *_OF_INSTANCE})
_META_TRANSFER_SYNTAX, _META_CALLING_AE = 0x00020010, 0x00020016


@dataclass(frozen=True, slots=True)
class StudyFields:
    """What the index keeps of a study; texts fit their columns."""

    patient_id: str
    patient_id_issuer: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    accession_issuer: str
    study_id: str
    study_date: str
    study_time: str
    timezone_offset: str
    study_description: str
    referring_physician: str
    announced_count: int | None
    """Number of Study Related Instances (0020,1208)."""


@dataclass(frozen=True, slots=True)
class SeriesFields:
    """What the index keeps of a series."""

    modality: str
    body_part: str
    series_description: str
    series_number: int | None
    series_date: str
    series_time: str
    performed_date: str
    """Performed Procedure Step Start Date (0040,0244)."""
    performed_time: str
    requested_procedure_id: str
    """Of the first item of Request Attributes Sequence (0040,0275), as the next one."""
    scheduled_step_id: str


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """What the index keeps of an instance."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    instance_number: int | None
    number_of_frames: int | None
    rows: int | None
    columns: int | None
    study: StudyFields
    series: SeriesFields


@dataclass(frozen=True, slots=True)
class PartTen:
    """The file meta information of a Part 10 file, as far as we need it."""

    transfer_syntax_uid: str
    calling_ae: str
    """Source Application Entity Title (0002,0016)."""
    data_set_offset: int
    """Where the data set begins, in bytes."""


def read_part10(stream: BinaryIO) -> PartTen:
    """Read preamble and file meta information (PS3.10 7.1); CannotUnderstandError where they are not there."""
    head = stream.read(_PREAMBLE_LENGTH + 4)
    if head[_PREAMBLE_LENGTH:] != b"DICM":
        raise CannotUnderstandError("not a DICOM file")
    explicit = Encoding(is_implicit=False)
    start = stream.tell()
    length = read_elements(stream, explicit, {0x00020000}, last=0x00020000).values.get(0x00020000, b"")
    stream.seek(start)
    meta = read_elements(stream, explicit, {_META_TRANSFER_SYNTAX, _META_CALLING_AE}, last=0x0002FFFF).values
    if _META_TRANSFER_SYNTAX not in meta or len(length) != 4:  # noqa: PLR2004 # UL
        raise CannotUnderstandError("the file meta information is incomplete")
    group_length_element = 12
    return PartTen(
        valid_uid(_ascii(meta[_META_TRANSFER_SYNTAX]), "transfer syntax"),
        _ascii(meta.get(_META_CALLING_AE, b""))[:16],
        start + group_length_element + int.from_bytes(length, "little"),
    )


def read_header(path: Path) -> InstanceHeader:
    """Read the header of a Part 10 file; CannotUnderstandError where a UID is wrong or missing."""
    with path.open("rb") as stream:
        part10 = read_part10(stream)
        stream.seek(part10.data_set_offset)
        return read_data_set(stream, part10.transfer_syntax_uid)


def read_data_set(stream: BinaryIO, transfer_syntax_uid: str) -> InstanceHeader:
    """Read the header of a data set from where the stream stands.

    Raises
    ------
    CannotUnderstandError
        The data set cannot be parsed, or a SOP Class, SOP Instance, Study or Series Instance UID is wrong or missing.
    """
    source = inflated(stream) if transfer_syntax_uid in DEFLATED else stream
    elements = read_elements(source, Encoding.of(transfer_syntax_uid), _WANTED, last=_REQUEST_ATTRIBUTES)
    fields = _Fields(elements)
    return InstanceHeader(
        transfer_syntax_uid=transfer_syntax_uid,
        sop_class_uid=fields.uid(_SOP_CLASS_UID, "SOP Class UID"),
        sop_instance_uid=fields.uid(_SOP_INSTANCE_UID, "SOP Instance UID"),
        study_instance_uid=fields.uid(_STUDY_UID, "Study Instance UID"),
        series_instance_uid=fields.uid(_SERIES_UID, "Series Instance UID"),
        instance_number=fields.integer(_INSTANCE_NUMBER),
        number_of_frames=fields.integer(_FRAMES),
        rows=fields.unsigned_short(_ROWS),
        columns=fields.unsigned_short(_COLUMNS),
        study=_fields_of(_study_fields, _OF_STUDY, elements),
        series=_fields_of(_series_fields, _OF_SERIES, elements),
    )


def valid_uid(value: str, what: str) -> str:
    """Return a UID that PS3.5 9.1 allows; leading zeros, which senders do write, are let through."""
    if not value:
        raise CannotUnderstandError(f"{what} is missing")
    if len(value) > _UID_LENGTH or _UID.fullmatch(value) is None:
        raise CannotUnderstandError(f"{what} is not a UID")
    return value


class _Fields:
    """Typed access to the encoded values."""

    def __init__(self, elements: Elements) -> None:
        self._elements = elements
        self._codecs = codecs_of(elements.values.get(_SPECIFIC_CHARACTER_SET, b"").strip(b" \0"))

    def uid(self, tag: int, what: str) -> str:
        return valid_uid(_ascii(self._elements.values.get(tag, b"")), what)

    def text(self, tag: int, column: sa.Column[str]) -> str:
        return self._cut(self._elements.values.get(tag, b""), column)

    def integer(self, tag: int) -> int | None:
        text = _ascii(self._elements.values.get(tag, b"")).split("\\")[0].strip()
        try:
            number = int(float(text))  # some senders write IS with a decimal point
        except (ValueError, OverflowError):
            return None
        return number if -_INT32 <= number < _INT32 else None

    def unsigned_short(self, tag: int) -> int | None:
        value = self._elements.values.get(tag, b"")
        order = "<" if self._elements.encoding.is_little_endian else ">"
        return int(struct.unpack_from(f"{order}H", value)[0]) if len(value) > 1 else None

    def date(self, tag: int, column: sa.Column[str]) -> str:
        return _OLD_DATE.sub(r"\1\2\3", self.text(tag, _WIDE))[: _length(column)]

    def issuer(self, tag: int, column: sa.Column[str]) -> str:
        """Return the entity of an HL7v2 Hierarchic Designator item (PS3.3 table 10-17), local before universal."""
        entities = self._elements.item(tag, {_LOCAL_ENTITY, _UNIVERSAL_ENTITY}).values
        return self._cut(entities.get(_LOCAL_ENTITY) or entities.get(_UNIVERSAL_ENTITY) or b"", column)

    def requested(self, tag: int, column: sa.Column[str]) -> str:
        """Return a text of the first item of Request Attributes Sequence."""
        item = self._elements.item(_REQUEST_ATTRIBUTES, {_SCHEDULED_STEP_ID, _REQUESTED_PROCEDURE_ID})
        return self._cut(item.values.get(tag, b""), column)

    def _cut(self, value: bytes, column: sa.Column[str]) -> str:
        text = _UNPRINTABLE.sub(" ", decode_text(value.rstrip(b" \0"), self._codecs))
        return text.strip()[: _length(column)].strip()


_WIDE = tables.study.c.study_description


@cache
def _length(column: sa.Column[str]) -> int:
    assert isinstance(column.type, sa.String) and column.type.length is not None  # noqa: S101 # our own tables
    return column.type.length


def _ascii(value: bytes) -> str:
    return value.strip(b" \0").decode("ascii", "replace")


_Made = TypeVar("_Made")


def _fields_of(make: _lru_cache_wrapper[_Made], tags: tuple[int, ...], elements: Elements) -> _Made:
    """Return what the values of these tags say; kept, since the instances of a study say the same."""
    values = tuple(elements.values.get(tag, b"") for tag in tags)
    is_kept = sum(map(len, values)) <= _LONGEST_KEPT
    made: _Made = (make if is_kept else make.__wrapped__)(values, elements.encoding)
    return made


@lru_cache(maxsize=128)
def _study_fields(values: tuple[bytes, ...], encoding: Encoding) -> StudyFields:
    fields = _Fields(Elements(dict(zip(_OF_STUDY, values, strict=True)), encoding))
    c = tables.study.c
    announced = fields.integer(_STUDY_INSTANCES)
    return StudyFields(
        patient_id=fields.text(_PATIENT_ID, c.patient_id),
        patient_id_issuer=fields.text(_PATIENT_ID_ISSUER, c.patient_id_issuer),
        patient_name=fields.text(_PATIENT_NAME, c.patient_name),
        patient_birth_date=fields.date(_PATIENT_BIRTH_DATE, c.patient_birth_date),
        patient_sex=fields.text(_PATIENT_SEX, c.patient_sex),
        accession_number=fields.text(_ACCESSION_NUMBER, c.accession_number),
        accession_issuer=fields.issuer(_ACCESSION_ISSUER, c.accession_issuer),
        study_id=fields.text(_STUDY_ID, c.study_id),
        study_date=fields.date(_STUDY_DATE, c.study_date),
        study_time=fields.text(_STUDY_TIME, c.study_time),
        timezone_offset=fields.text(_TIMEZONE, c.timezone_offset),
        study_description=fields.text(_STUDY_DESCRIPTION, c.study_description),
        referring_physician=fields.text(_REFERRING_PHYSICIAN, c.referring_physician),
        announced_count=announced if announced is not None and announced > 0 else None,
    )


@lru_cache(maxsize=128)
def _series_fields(values: tuple[bytes, ...], encoding: Encoding) -> SeriesFields:
    fields = _Fields(Elements(dict(zip(_OF_SERIES, values, strict=True)), encoding))
    c = tables.series.c
    return SeriesFields(
        modality=fields.text(_MODALITY, c.modality),
        body_part=fields.text(_BODY_PART, c.body_part),
        series_description=fields.text(_SERIES_DESCRIPTION, c.series_description),
        series_number=fields.integer(_SERIES_NUMBER),
        series_date=fields.date(_SERIES_DATE, c.series_date),
        series_time=fields.text(_SERIES_TIME, c.series_time),
        performed_date=fields.date(_PERFORMED_DATE, c.performed_date),
        performed_time=fields.text(_PERFORMED_TIME, c.performed_time),
        requested_procedure_id=fields.requested(_REQUESTED_PROCEDURE_ID, c.requested_procedure_id),
        scheduled_step_id=fields.requested(_SCHEDULED_STEP_ID, c.scheduled_step_id),
    )
