"""C-GET and C-MOVE over real associations: what arrives, how it is encoded, and what is said of the rest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from gateway.config import DicomAddress
from gateway.store import Store
from gateway.store.tables import artefact
from tests.querying import (
    FIND_STUDY,
    GET_STUDY,
    answering,
    ask,
    asking,
    dcmtk,
    get,
    identifier,
)
from tests.receiving import (
    CT,
    EXPLICIT,
    IMPLICIT,
    Running,
    Sending,
    as_it_lies,
    associated,
    image,
    rows,
    send,
    sending,
    until,
)
from tests.services.orthanc import Orthanc
from tests.services.process import LOOPBACK, Program, free_port, listens
from tests.studies import RealData
from tests.working import add_job

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

STUDY = "1.2.3.1"
J2K = "1.2.840.10008.1.2.4.90"
US = "1.2.840.10008.5.1.4.1.1.6.1"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


def _fill(running: Running, images: list[Sending]) -> None:
    before = len(rows(running.store))
    with associated(running.port, images) as association:
        for each in images:
            answer = send(association, each)
            assert answer is not None
            assert answer.status == 0
    until(lambda: len(rows(running.store)) == before + len(images), "all indexed")


def _numbered(count: int, **changes: object) -> list[Dataset]:
    return [
        image(STUDY, SOPInstanceUID=f"{STUDY}.1.{number}", InstanceNumber=number, **changes) for number in range(count)
    ]


def _whole_study(uid: str = STUDY) -> Dataset:
    return identifier("STUDY", StudyInstanceUID=uid)


def test_getscu_and_movescu_of_dcmtk_get_a_real_study(local_store: Store, real_data: RealData, tmp_path: Path) -> None:
    """All slices of a CT series reach dcmtk's getscu, and its storescp by way of movescu, byte for byte."""
    files = real_data.studies()["ct-philips"][:12]
    sent = [as_it_lies(path) for path in files]
    study = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    storescp = DicomAddress("STORESCP", LOOPBACK, free_port())
    folders = [tmp_path / "get", tmp_path / "move"]
    for folder in folders:
        folder.mkdir()

    with answering(local_store, [storescp]) as running, _storescp(storescp, folders[1], tmp_path):
        _fill(running, sent)
        asked = ["-v", "-S", "-aec", "HYBRIDMED", "127.0.0.1", str(running.port), "-k", "QueryRetrieveLevel=STUDY"]
        asked += ["-k", f"StudyInstanceUID={study}"]
        got = dcmtk("getscu", "-B", "+B", "-od", str(folders[0]), *asked)
        moved = dcmtk("movescu", "-aem", "STORESCP", *asked)

    assert f"Number of Completed Suboperations : {len(files)}" in got, got
    assert "Received Final Move Response (Success)" in moved, moved
    for folder in folders:
        assert sorted(_pixels(path) for path in folder.iterdir()) == sorted(_pixels(path) for path in files)
    assert running.counters['hybridmed_suboperations_total{outcome="completed"}'] == 2 * len(files)
    assert running.counters['hybridmed_gets_total{status="0000"}'] == 1


def _pixels(path: Path) -> tuple[str, bytes]:
    read = pydicom.dcmread(path)
    return str(read.SOPInstanceUID), read.PixelData


class _storescp:
    """Dcmtk's storescp, for as long as the context lasts."""

    def __init__(self, address: DicomAddress, folder: Path, home: Path) -> None:
        command = ["/usr/bin/storescp", "-aet", address.ae_title, "-od", str(folder), str(address.port)]
        self._program = Program(command, log=home / "storescp.log")
        self._port = address.port

    def __enter__(self) -> None:
        self._program.start()
        self._program.wait_ready(lambda: listens(self._port), 20)

    def __exit__(self, *_exception: object) -> None:
        self._program.stop()


@pytest.mark.parametrize(("stored", "taken"), [(IMPLICIT, EXPLICIT), (EXPLICIT, IMPLICIT), (EXPLICIT, EXPLICIT)])
def test_an_object_comes_in_the_encoding_that_the_peer_takes(local_store: Store, stored: str, taken: str) -> None:
    """Implicit and Explicit VR become each other; values, nested sequences and private elements stay."""
    inner = Dataset()
    inner.CodeValue = "T-1"
    nested = Dataset()
    nested.AnatomicRegionSequence = [inner]
    original = image(STUDY, PatientName="Doe^Jane", ReferencedImageSequence=[nested], SmallestImagePixelValue=3)
    original.PixelRepresentation = 0
    original.add_new(0x00110010, "LO", "MAKER")
    original.add_new(0x00111001, "UN", b"private ")
    original.PixelData = b"\1\2\3\4\5\6\7\x08"
    original["PixelData"].VR = "OW"

    with answering(local_store) as running:
        _fill(running, [sending(original, stored)])
        got = get(running.port, _whole_study(), {CT: [taken]})

    (received,) = got.received
    assert (got.status, got.counts) == (0, (1, 0, 0))
    assert received.file_meta.TransferSyntaxUID == taken
    assert received.PixelData == original.PixelData
    assert received.ReferencedImageSequence[0].AnatomicRegionSequence[0].CodeValue == "T-1"
    assert bytes(received[0x00111001].value) == b"private "
    assert (str(received.PatientName), received.SmallestImagePixelValue) == ("Doe^Jane", 3)


def test_a_compressed_object_is_decoded_for_a_peer_that_takes_none(local_store: Store, real_data: RealData) -> None:
    """JPEG 2000 goes as it is to who takes it, and with the same pixels in Explicit VR to who does not."""
    path = next((each for each in real_data.studies()["odd"] if each.name == "US1_J2KR.dcm"), None)
    if path is None:
        pytest.skip("the odd files are not here")
    wanted = _whole_study(str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID))
    sop_class = str(pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID)

    with answering(local_store) as running:
        _fill(running, [as_it_lies(path)])
        compressed = get(running.port, wanted, {sop_class: [J2K]})
        plain = get(running.port, wanted, {sop_class: [J2K, EXPLICIT]})

    assert [each.status for each in (compressed, plain)] == [0, 0]
    assert compressed.received[0].file_meta.TransferSyntaxUID == J2K
    assert plain.received[0].file_meta.TransferSyntaxUID == EXPLICIT
    assert np.array_equal(plain.received[0].pixel_array, pydicom.dcmread(path).pixel_array)


def test_what_the_peer_does_not_take_is_counted_and_named(local_store: Store) -> None:
    """One of three objects is of a class without a context: B000, its UID in the list, a sentence why."""
    other = image(STUDY, SOPClassUID=US, SOPInstanceUID=f"{STUDY}.2.1", SeriesInstanceUID=f"{STUDY}.2", Modality="US")

    with answering(local_store) as running:
        _fill(running, [sending(each) for each in (*_numbered(2), other)])
        some = get(running.port, _whole_study(), {CT: [EXPLICIT]})
        none = get(running.port, identifier("SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.2"), {CT: []})
        nothing = get(running.port, _whole_study("1.2.3.77"), {CT: []})

    assert (some.status, some.counts, some.failed) == (0xB000, (2, 1, 0), [f"{STUDY}.2.1"])
    assert some.comment == "the peer accepts no such object in a transfer syntax that we can give"[:64]
    assert (none.status, none.counts, none.failed) == (0xA702, (0, 1, 0), [f"{STUDY}.2.1"])
    assert (nothing.status, nothing.counts, nothing.failed) == (0, (0, 0, 0), [])


def test_a_file_that_is_gone_fails_alone(local_store: Store) -> None:
    """Where one file is missing on the disk, the others arrive, and the missing one is named."""
    with answering(local_store) as running:
        _fill(running, [sending(each) for each in _numbered(3)])
        gone = rows(local_store)[1]
        (local_store.data_dir / gone.path).unlink()
        got = get(running.port, _whole_study(), {CT: [EXPLICIT]})

    assert (got.status, got.counts, got.failed) == (0xB000, (2, 1, 0), [gone.sop_instance_uid])
    assert "cannot be read" in got.comment


@pytest.mark.parametrize(
    ("level", "keys", "comment"),
    [
        ("STUDY", {}, "StudyInstanceUID is missing"),
        ("SERIES", {"SeriesInstanceUID": f"{STUDY}.1"}, "StudyInstanceUID must be a single value at this level"),
        ("PATIENT", {"PatientID": "P1"}, "Query/Retrieve Level is one of STUDY, SERIES, IMAGE"),
        ("STUDY", {"StudyInstanceUID": "1.2.x"}, "StudyInstanceUID is not a UID"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_an_identifier_that_does_not_fit_is_refused(
    local_store: Store, level: str, keys: dict[str, str], comment: str
) -> None:
    """A unique key missing, wrong or of another level: A900 and which."""
    with answering(local_store) as running:
        got = get(running.port, identifier(level, **keys), {CT: []})

    assert (got.status, got.comment) == (0xA900, comment)


def test_images_by_list_and_patients_by_id(local_store: Store) -> None:
    """A list of SOP Instance UIDs brings those; a Patient ID, in Patient Root, all of the patient and no other."""
    strange = image("1.2.3.2", PatientID="P2")
    patient_root = GET_STUDY.replace(".2.2.3", ".2.1.3")
    by_list = identifier(
        "IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=[f"{STUDY}.1.0", f"{STUDY}.1.2"]
    )

    with answering(local_store) as running:
        _fill(running, [sending(each) for each in (*_numbered(3), strange)])
        images = get(running.port, by_list, {CT: []})
        patient = get(running.port, identifier("PATIENT", PatientID="P1"), {CT: []}, patient_root)
        other = identifier("STUDY", PatientID="P2", StudyInstanceUID=STUDY)
        of_another = get(running.port, other, {CT: []}, patient_root)

    assert [each.SOPInstanceUID for each in images.received] == [f"{STUDY}.1.0", f"{STUDY}.1.2"]
    assert {each.PatientID for each in patient.received} == {"P1"}
    assert len(patient.received) == 3
    assert (of_another.status, of_another.received) == (0, [])


def test_a_peer_that_leaves_in_the_middle_of_a_get_is_let_go(local_store: Store) -> None:
    """After an abort in the middle of a C-GET, the receiver serves the next one."""
    with answering(local_store) as running:
        _fill(running, [sending(each) for each in _numbered(10)])
        with asking(running.port, [GET_STUDY, FIND_STUDY]) as association:
            for count, _ in enumerate(association.send_c_get(_whole_study(), GET_STUDY)):
                if count == 2:
                    association.abort()
                    break
        until(lambda: not running.counters.get("hybridmed_associations_open"), "the association is over")
        after = get(running.port, _whole_study(), {CT: []})

    assert (after.status, after.counts) == (0, (10, 0, 0))


def test_orthanc_queries_and_pulls(store: Store, orthanc: Orthanc, real_data: RealData) -> None:
    """Orthanc finds an MR study by its patient's name and has it sent to itself by C-MOVE."""
    files = real_data.studies()["mr"][:20]
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    us = {"ae_title": "HYBRIDMED"}

    with answering(store, [DicomAddress.parse(orthanc.dicom_address)]) as running:
        _fill(running, [as_it_lies(path) for path in files])
        name = f"{str(header.PatientName)[:4]}*"
        query, answers = orthanc.query("Study", {"PatientName": name}, port=running.port, **us)
        orthanc.retrieve(query)

    assert [answer["StudyInstanceUID"] for answer in answers] == [header.StudyInstanceUID]
    assert len(orthanc.list_instances(StudyInstanceUID=str(header.StudyInstanceUID))) == len(files)


def test_our_results_are_found_and_pulled_with_the_images(local_store: Store) -> None:
    """A structured report of ours is a series of its study: C-FIND names it, C-GET brings it, commitment aside."""
    report = image(STUDY, SOPClassUID=SR, SOPInstanceUID=f"{STUDY}.9.1", SeriesInstanceUID=f"{STUDY}.9", Modality="SR")
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    path = local_store.data_dir / "results" / "report.dcm"
    path.parent.mkdir()
    pydicom.dcmwrite(path, report, enforce_file_format=True)

    with answering(local_store) as running:
        _fill(running, [sending(each) for each in _numbered(1)])
        job_id = add_job(local_store, STUDY)
        _add_result(local_store, job_id, report, path)
        with asking(running.port, [FIND_STUDY]) as association:
            found = ask(association, FIND_STUDY, identifier("SERIES", StudyInstanceUID=STUDY, Modality=""))
        got = get(running.port, _whole_study(), {CT: [], SR: [IMPLICIT]})

    assert sorted(answer.Modality for answer in found.answers) == ["CT", "SR"]
    assert (got.status, got.counts) == (0, (2, 0, 0))
    assert {str(each.SOPClassUID) for each in got.received} == {CT, SR}


def _add_result(store: Store, job_id: str, made: Dataset, path: Path) -> None:
    row = {"job_id": job_id, "kind": "sr-findings", "ordinal": 0, "variant": "", "media_type": "application/dicom"}
    row |= {"study_instance_uid": STUDY, "series_instance_uid": made.SeriesInstanceUID, "sop_class_uid": SR}
    row |= {"sop_instance_uid": made.SOPInstanceUID, "path": str(path.relative_to(store.data_dir)), "digest": "d"}
    row |= {"size_bytes": path.stat().st_size, "created_at": datetime.now(UTC), "modality": "SR"}
    with store.write() as connection:
        connection.execute(sa.insert(artefact).values(**row))
