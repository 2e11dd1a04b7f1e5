"""Objects without the patient: nothing of table E.1-1 is left, and what refers still meets what it means."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from gateway.delivery.sender import Outgoing
from gateway.errors import DeliveryError
from gateway.exchange.deidentified import KeyedPseudonyms
from gateway.privacy.deidentify import BurnedInError, Deidentifier
from gateway.privacy.profile import ACTS, CHARACTERISTICS
from gateway.privacy.sender import DeidentifyingSender
from gateway.report import render_outcome
from tests import validators
from tests.unit.report.outcomes import assignment, write_xray, xray_findings

MARK = "ZQXMARK"
MARK_UID = "1.2.3.77777777"
PSEUDONYMS = KeyedPseudonyms(b"k" * 32)
DEIDENTIFIER = Deidentifier(PSEUDONYMS)
_VALUES: dict[str, object] = {
    "PN": f"{MARK}^A",
    "UI": MARK_UID,
    "DA": "19770707",
    "DT": "19770707070707",
    "TM": "070707",
}
_VALUES |= {"AS": "033Y", "DS": "7", "IS": "7"} | dict.fromkeys(
    ("LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE", "UR"), MARK
)


def marked(header: Dataset) -> None:
    """Write marks wherever an X-ray of a hospital carries something of a person or a place."""
    header.PatientName, header.PatientID, header.IssuerOfPatientID = f"{MARK}^Jane", f"{MARK}1", f"{MARK}HOSP"
    header.PatientBirthDate, header.PatientSex, header.PatientAge = "19300707", "F", "096Y"
    header.AccessionNumber, header.StudyID, header.ReferringPhysicianName = f"{MARK}2", f"{MARK}3", f"{MARK}^Doc"
    header.InstitutionName, header.StationName, header.OperatorsName = f"{MARK} Clinic", MARK, f"{MARK}^Op"
    header.StudyDescription, header.PatientComments, header.OtherPatientIDs = f"{MARK} knee", MARK, MARK
    header.add_new(0x00090010, "LO", MARK)
    header.add_new(0x00091001, "LO", MARK)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give the results of a marked X-ray: kind -> file."""
    folder = tmp_path_factory.mktemp("marked")
    made = render_outcome(xray_findings(), assignment(), write_xray(folder, marked))
    return {each.reference.kind: as_file(each.dataset) for each in made}


def as_file(data_set: Dataset) -> bytes:
    """Return a data set as a Part 10 file."""
    buffer = BytesIO()
    data_set.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def applied(content: bytes) -> tuple[Dataset, bytes]:
    """Return a file's data set without the patient, and its bytes."""
    data_set = DEIDENTIFIER.apply(pydicom.dcmread(BytesIO(content)), is_own=True)
    return data_set, as_file(data_set)


def test_results_lose_the_patient_and_stay_valid(objects: dict[str, bytes], tmp_path: Path) -> None:
    """No mark in bytes or in dcmtk's dump; validators find nothing new; segment and report still meet."""
    clean = {kind: applied(content) for kind, content in objects.items() if not kind.startswith("heatmap")}
    assert {"seg", "sr-findings", "sr-measurements"} <= clean.keys()
    for kind, (data_set, content) in clean.items():
        before, after = tmp_path / f"{kind}-before.dcm", tmp_path / f"{kind}.dcm"
        before.write_bytes(objects[kind])
        after.write_bytes(content)
        dump = subprocess.run(["dcmdump", "+L", str(after)], capture_output=True, timeout=60, check=True).stdout
        assert MARK.encode() in objects[kind]
        assert MARK.encode() not in content + dump
        assert b"19300707" not in content
        assert set(validators.dciodvfy(after)) <= set(validators.dciodvfy(before))
        assert (data_set.PatientSex, data_set.PatientIdentityRemoved) == ("F", "YES")
        assert data_set.PatientID == PSEUDONYMS.patient(f"{MARK}HOSP", f"{MARK}1")
        if kind == "sr-measurements":
            assert validators.pixelmed(after) == []
    original = {kind: pydicom.dcmread(BytesIO(content)) for kind, content in objects.items()}
    segmentation, report = clean["seg"][0], clean["sr-measurements"][0]
    assert segmentation.SOPInstanceUID == PSEUDONYMS.uid(original["seg"].SOPInstanceUID)
    assert f"{segmentation.SOPInstanceUID}" in str(report)
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == PSEUDONYMS.uid(
        original["seg"].ReferencedSeriesSequence[0].SeriesInstanceUID
    )
    assert segmentation.SeriesDescription == original["seg"].SeriesDescription
    shift = PSEUDONYMS.shift(f"{MARK}HOSP", f"{MARK}1").days
    assert shift < 0
    assert segmentation.StudyDate != original["seg"].StudyDate


def test_a_picture_with_text_in_it_stays_here(objects: dict[str, bytes]) -> None:
    """Our heat map says that text is burned in; a capture or an ultrasound that says nothing is not believed."""
    heat_map = next(content for kind, content in objects.items() if kind.startswith("heatmap"))
    ultrasound = Dataset()
    ultrasound.Modality = "US"

    for data_set in (pydicom.dcmread(BytesIO(heat_map)), ultrasound):
        with pytest.raises(BurnedInError):
            DEIDENTIFIER.apply(data_set, is_own=True)


def test_a_delivery_of_which_nothing_is_left_is_not_done(objects: dict[str, bytes], tmp_path: Path) -> None:
    """It goes to the failed list, where somebody sees it; what may go beside a withheld picture goes."""
    sent: list[str] = []

    class Inner:
        def send(self, outgoing: Iterable[Outgoing], /) -> None:
            sent.extend(each.kind for each in outgoing)

    files = []
    for kind in ("seg", next(kind for kind in objects if kind.startswith("heatmap"))):
        (tmp_path / f"{kind}.dcm").write_bytes(objects[kind])
        files.append(Outgoing(kind, tmp_path / f"{kind}.dcm", "1.2", "1.3"))
    sender = DeidentifyingSender(Inner(), DEIDENTIFIER)

    sender.send(files)
    with pytest.raises(DeliveryError, match="nothing is left"):
        sender.send(files[1:])

    assert sent == ["seg"]


def test_nothing_of_the_table_is_left() -> None:
    """Every attribute of table E.1-1, every person's name of the dictionary, here and in items: the mark is gone."""
    names = [tag for tag, entry in DicomDictionary.items() if entry[0] == "PN"]
    data_set = Dataset()
    for tag in {*ACTS, *names} - CHARACTERISTICS:
        if tag in DicomDictionary and (vr := dictionary_VR(tag)) in _VALUES:
            data_set.add_new(tag, vr, _VALUES[vr])
    nested = Dataset()
    nested.update({element.tag: element for element in data_set})
    data_set.SourceImageSequence = Sequence([nested])
    data_set.StudyInstanceUID = generate_uid()
    assert len(data_set) > 400

    text = str(DEIDENTIFIER.apply(data_set, is_own=False))

    assert MARK not in text
    assert MARK_UID not in text
    assert "19770707" not in text


def test_the_same_patient_is_the_same_and_intervals_stay() -> None:
    """Two studies a week apart: one pseudonym, a week apart; a registered UID is left; an old age is capped."""

    def image(day: str) -> Dataset:
        data_set = Dataset()
        data_set.PatientID, data_set.StudyDate, data_set.PatientAge = "P1", day, "096Y"
        data_set.AcquisitionDateTime = f"{day}120000.5+0100"
        data_set.SOPClassUID, data_set.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
        return DEIDENTIFIER.apply(data_set, is_own=False)

    one, two = image("20260301"), image("20260308")

    assert one.PatientID == two.PatientID != "P1"
    days = [pydicom.valuerep.DA(each.StudyDate) for each in (one, two)]
    assert (days[1] - days[0]).days == 7
    assert one.AcquisitionDateTime[:8] == one.StudyDate
    assert one.AcquisitionDateTime.endswith("120000.5+0100")
    assert (one.SOPClassUID, one.PatientAge) == ("1.2.840.10008.5.1.4.1.1.2", "090Y")


def test_what_a_person_wrote_in_a_report_goes() -> None:
    """Comments and names go, the algorithm's name stays, dates are shifted, numbers stay."""

    def item(kind: str, code: str, **values: object) -> Dataset:
        content, name = Dataset(), Dataset()
        name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = code, "DCM", "x"
        content.ValueType, content.ConceptNameCodeSequence = kind, Sequence([name])
        for keyword, value in values.items():
            setattr(content, keyword, value)
        return content

    report = Dataset()
    report.PatientID = "P1"
    report.ContentSequence = Sequence(
        [
            item("TEXT", "121106", TextValue=f"{MARK} came late"),
            item("TEXT", "111001", TextValue="cxr-pneumonia"),
            item("PNAME", "121008", PersonName=f"{MARK}^Doc"),
            item("DATETIME", "121135", DateTime="19770707"),
            item("CONTAINER", "121070", ContentSequence=Sequence([item("TEXT", "121071", TextValue=MARK)])),
        ]
    )

    text = str(DEIDENTIFIER.apply(report, is_own=True))

    assert MARK not in text
    assert "19770707" not in text
    assert "cxr-pneumonia" in text
