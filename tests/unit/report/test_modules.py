"""The source's patient and study attributes come out as they went in."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from gateway.report import render_outcome
from tests.unit.report.outcomes import assignment, write_xray, xray_findings

_NAMES = {
    "GB18030": ("GB18030", "\u738b^\u5c0f\u6771", "\u80f8\u90e8 X \u7dda"),
    "ISO 2022 IR 87": (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", "\u80f8\u90e8"),
    "ISO 2022 IR 149": (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e", "\ud749\ubd80"),
    "ISO_IR 192": ("ISO_IR 192", "M\u00fcller^J\u00f6rg", "R\u00f6ntgen Thorax"),
    "ISO_IR 100": ("ISO_IR 100", "M\u00fcller^J\u00f6rg", "R\u00f6ntgen Thorax"),
}
_PATIENT_NAME, _STUDY_DESCRIPTION, _BIRTH_DATE = 0x00100010, 0x00081030, 0x00100030


def _raw(dataset: Dataset, tag: int) -> object:
    element = dataset.get_item(tag)
    assert isinstance(element, RawDataElement)
    return element.value


@pytest.mark.parametrize("name", _NAMES)
def test_text_keeps_its_bytes_in_every_character_set(tmp_path: Path, name: str) -> None:
    """GB18030 and multi-valued ISO 2022 names are copied byte for byte and read back right."""
    character_set, patient, description = _NAMES[name]

    def write(header: Dataset) -> None:
        header.SpecificCharacterSet = character_set
        header.PatientName, header.StudyDescription = patient, description

    files = write_xray(tmp_path, write)
    source = pydicom.dcmread(files[0])

    objects = render_outcome(xray_findings(), assignment(), files)

    assert len(objects) == 5
    for each in objects:
        for tag in (_PATIENT_NAME, _STUDY_DESCRIPTION):
            assert _raw(each.dataset, tag) == _raw(source, tag)
        assert str(each.dataset.PatientName) == patient
        assert each.dataset.StudyDescription == description


def test_wrong_values_are_copied_and_do_not_stop_the_results(tmp_path: Path) -> None:
    """A birth date with letters, a name with six components and undeclared bytes stay as they are."""

    def spoil(header: Dataset) -> None:
        for tag, vr, value in (
            (_BIRTH_DATE, "DA", b"unknown "),
            (_PATIENT_NAME, "PN", b"a^b^c^d^e^f\xe4"),
            (0x00100040, "CS", b"weiblich"),
            (0x00080020, "DA", b"2026/01/01"),
        ):
            header[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)

    files = write_xray(tmp_path, spoil)

    objects = render_outcome(xray_findings(), assignment(), files)

    assert {_raw(each.dataset, _BIRTH_DATE) for each in objects} == {b"unknown "}
    assert {_raw(each.dataset, _PATIENT_NAME) for each in objects} == {b"a^b^c^d^e^f\xe4"}


def test_missing_type_2_attributes_become_empty(tmp_path: Path) -> None:
    """A source without birth date, sex, study id and accession number gets results that have them, empty."""
    missing = ("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime", "PatientName")

    def drop(header: Dataset) -> None:
        for keyword in missing:
            delattr(header, keyword)

    objects = render_outcome(xray_findings(), assignment(), write_xray(tmp_path, drop))

    for each in objects:
        assert all(keyword in each.dataset and not each.dataset[keyword].value for keyword in missing)


def test_issuers_order_and_time_zone_are_copied(tmp_path: Path) -> None:
    """Issuers of patient id and accession number, request attributes, series time and offset go along."""

    def add(header: Dataset) -> None:
        header.IssuerOfPatientID = "HOSPITAL"
        issuer, order = Dataset(), Dataset()
        issuer.UniversalEntityID, issuer.UniversalEntityIDType = "1.2.3", "ISO"
        order.RequestedProcedureID, order.ScheduledProcedureStepID = "RP-7", "SPS-7"
        header.IssuerOfAccessionNumberSequence, header.RequestAttributesSequence = [issuer], [order]
        header.TimezoneOffsetFromUTC = "+0130"

    objects = render_outcome(xray_findings(), assignment(), write_xray(tmp_path, add))

    for each in objects:
        dataset = each.dataset
        assert dataset.IssuerOfPatientID == "HOSPITAL"
        assert dataset.IssuerOfAccessionNumberSequence[0].UniversalEntityID == "1.2.3"
        assert (dataset.SeriesDate, dataset.SeriesTime) == ("20260101", "101500")
        assert (dataset.TimezoneOffsetFromUTC, dataset.ContentDate) == ("+0130", "20260103")
        assert str(dataset.ContentTime).startswith("010000")
        if each.reference.kind == "seg":
            assert dataset.RequestAttributesSequence[0].RequestedProcedureID == "RP-7"


def test_reference_without_its_uid_is_left_out(tmp_path: Path) -> None:
    """A Referenced Study Sequence that names no class would make every result invalid."""

    def refer(header: Dataset) -> None:
        item = Dataset()
        item.ReferencedSOPInstanceUID = "2.25.1"
        header.ReferencedStudySequence = [item]

    objects = render_outcome(xray_findings(), assignment(), write_xray(tmp_path, refer))

    assert all("ReferencedStudySequence" not in each.dataset for each in objects)
