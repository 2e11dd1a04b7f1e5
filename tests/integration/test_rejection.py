"""Delete by rejection, and rejection notes that arrive."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from gateway.query import locate
from gateway.rejection import CODES, KEY_OBJECT_SELECTION, read_note
from gateway.report.assignment import ObjectReference
from gateway.report.rejection_note import REASONS, NoteIdentity, render_rejection_note
from gateway.store import Store
from gateway.store.studies import get_study, list_instances, list_series, list_studies
from gateway.store.tables import rejection
from gateway.store.worklist import WorklistFilter, count_worklist
from tests import validators
from tests.dicomweb import AS_STORED, as_file, dicomweb, instance_path, store_files, store_paths
from tests.receiving import image, kept_files, receiving, rows, send_one, sending, until
from tests.studies import RealData


@pytest.fixture
def server(sqlite_store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server over an empty store."""
    with dicomweb(sqlite_store) as client:
        yield client


@pytest.fixture
def three(server: httpx.Client) -> list[Dataset]:
    """Store a study of two series, of two instances and of one."""
    return store_three(server)


def store_three(server: httpx.Client) -> list[Dataset]:
    """Store a study of two series, of two instances and of one."""
    one = image()
    two = image(one.StudyInstanceUID)
    other = image(one.StudyInstanceUID, SeriesInstanceUID=generate_uid())
    assert store_files(server, [as_file(each) for each in (one, two, other)]).status_code == 200
    return [one, two, other]


def status(server: httpx.Client, path: str) -> int:
    """Retrieve as stored."""
    return server.get(path, headers={"Accept": AS_STORED}).status_code


def listed(server: httpx.Client, level: str) -> int:
    """Count what QIDO-RS lists."""
    answer = server.get(level, headers={"Accept": "application/dicom+json"})
    return len(answer.json()) if answer.status_code == 200 else 0


def note_of(objects: list[Dataset], code: str = "113001", study_uid: str | None = None) -> Dataset:
    """Return a rejection note as another system sends it."""
    references = [
        ObjectReference("", o.StudyInstanceUID, o.SeriesInstanceUID, o.SOPClassUID, o.SOPInstanceUID) for o in objects
    ]
    identity = NoteIdentity(generate_uid(), generate_uid(), datetime.now(UTC))
    note = render_rejection_note(references, REASONS[code], source=objects[0], identity=identity)
    note = copy.deepcopy(note)  # its elements are the source's own
    if study_uid is not None:
        note.StudyInstanceUID = study_uid
    return note


def test_a_rejected_instance_is_gone_and_its_file_stays(
    server: httpx.Client, three: list[Dataset], sqlite_store: Store
) -> None:
    """410 for itself, left out of its series, of lists, and of what a worker evaluates; the study is not reopened."""
    one, two, _ = three
    before = get_revision(sqlite_store, one)
    answer = server.delete(f"{instance_path(one)}?reason=113037")

    assert answer.json()["rejected"] == 1
    assert status(server, instance_path(one)) == 410
    assert server.get(f"{instance_path(one)}/metadata").status_code == 410
    assert status(server, instance_path(two)) == 200
    assert listed(server, "instances") == 3  # two, and the note
    with sqlite_store.read() as connection:
        found = {each.sop_instance_uid for each in list_instances(connection, one.StudyInstanceUID)}
        series = {
            each.series_instance_uid: each.instance_count for each in list_series(connection, one.StudyInstanceUID)
        }
        (row,) = connection.execute(sa.select(rejection)).all()
    assert one.SOPInstanceUID not in found
    assert series[one.SeriesInstanceUID] == 1
    assert (row.code, row.requested_by, row.sop_instance_uid) == ("113037", "web", one.SOPInstanceUID)
    assert get_revision(sqlite_store, one) == before
    assert any(pydicom.dcmread(path).SOPInstanceUID == one.SOPInstanceUID for path in kept_files(sqlite_store))


def get_revision(store: Store, one: Dataset) -> tuple[int, str]:
    """Return revision and state of a study."""
    with store.read() as connection:
        row = get_study(connection, one.StudyInstanceUID)
    return row.revision, row.state


def test_the_note_says_what_was_rejected(server: httpx.Client, real_data: RealData, tmp_path: Path) -> None:
    """Independent validators find no error in it; it carries the source's patient; our own reader understands it."""
    paths = real_data.studies()["ct-philips"][:3]
    store_paths(server, paths)
    source = pydicom.dcmread(paths[0])
    answer = server.delete(f"studies/{source.StudyInstanceUID}/series/{source.SeriesInstanceUID}?reason=113039")
    note = server.get(answer.headers["content-location"], headers={"Accept": "application/dicom"})
    (tmp_path / "note.dcm").write_bytes(note.content)

    assert validators.dciodvfy(tmp_path / "note.dcm") == []
    assert validators.dsrdump(tmp_path / "note.dcm") == []
    read = read_note(tmp_path / "note.dcm")
    assert read is not None
    assert (read[0], len(read[1])) == ("113039", 3)
    told = pydicom.dcmread(io.BytesIO(note.content))
    assert (told.PatientID, told.PatientName) == (source.PatientID, source.PatientName)
    assert told.ConceptNameCodeSequence[0].CodeMeaning == "Data Retention Policy Expired"


def in_lists(store: Store) -> tuple[int, int]:
    """Count the operator's list of studies and the worklist."""
    with store.read() as connection:
        return len(list_studies(connection)), count_worklist(connection, WorklistFilter(), 100)


def test_a_study_rejected_whole_vanishes(store: Store) -> None:
    """On both databases, from all lists and from retrieval; the notes can still be had by their own UIDs."""
    with dicomweb(store) as server:
        three = store_three(server)
        client = DICOMwebClient(str(server.base_url).rstrip("/"))
        first = server.delete(instance_path(three[0])).headers["content-location"]
        assert in_lists(store) == (1, 1)
        client.delete_study(three[0].StudyInstanceUID)

        assert (listed(server, "studies"), listed(server, "series"), listed(server, "instances")) == (0, 0, 0)
        assert in_lists(store) == (0, 0)
        assert status(server, f"studies/{three[0].StudyInstanceUID}") == 410
        assert status(server, first) == 200
        assert len(rows(store)) == 5
        assert server.delete(f"studies/{three[0].StudyInstanceUID}").status_code == 410


def test_a_rejected_instance_that_comes_again_stays_away(server: httpx.Client, three: list[Dataset]) -> None:
    """The same UID, with the same bytes or with others."""
    server.delete(instance_path(three[0]))
    store_files(server, [as_file(three[0])])
    three[0].PatientComments = "changed"
    assert store_files(server, [as_file(three[0])]).status_code == 200

    assert status(server, instance_path(three[0])) == 410


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_note_by_c_store_rejects(sqlite_store: Store, code: str) -> None:
    """What another system rejects is rejected here from the moment its note is indexed."""
    one, two = image(), image()
    two.StudyInstanceUID, two.SeriesInstanceUID = one.StudyInstanceUID, one.SeriesInstanceUID
    with receiving(sqlite_store) as running:
        for each in (one, two, note_of([one], code)):
            assert send_one(running.port, sending(each), "PACS").status == 0
        until(lambda: len(rows(sqlite_store)) == 3, "indexed")

    with sqlite_store.read() as connection:
        (row,) = connection.execute(sa.select(rejection)).all()
        shown = {each.sop_instance_uid for each in locate(connection, study_instance_uid=one.StudyInstanceUID)}
    assert (row.sop_instance_uid, row.code, row.requested_by) == (one.SOPInstanceUID, code, "PACS")
    assert one.SOPInstanceUID not in shown
    assert two.SOPInstanceUID in shown


def test_a_note_by_stow_rejects_what_comes_later(server: httpx.Client) -> None:
    """A note may be faster than its images."""
    one = image()
    assert store_files(server, [as_file(note_of([one]))]).status_code == 200
    assert store_files(server, [as_file(one)]).status_code == 200

    assert status(server, instance_path(one)) == 410


def test_a_note_decides_for_its_own_study_alone(server: httpx.Client, three: list[Dataset]) -> None:
    """References into another study do nothing."""
    assert store_files(server, [as_file(note_of([three[0]], study_uid=generate_uid()))]).status_code == 200

    assert status(server, instance_path(three[0])) == 200


@pytest.mark.parametrize("breach", ["title", "no title", "no evidence", "uid"])
def test_other_key_objects_and_broken_ones_reject_nothing(
    server: httpx.Client, three: list[Dataset], breach: str
) -> None:
    """They are kept as any object."""
    note = note_of(three)
    if breach == "title":
        note.ConceptNameCodeSequence[0].CodeValue = "113000"
    elif breach == "no title":
        del note.ConceptNameCodeSequence
    elif breach == "no evidence":
        del note.CurrentRequestedProcedureEvidenceSequence
    else:
        series = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        del series[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert note.SOPClassUID == KEY_OBJECT_SELECTION
    assert store_files(server, [as_file(note)]).status_code == 200

    assert [status(server, instance_path(each)) for each in (*three, note)] == [200] * 4


def test_what_cannot_be_deleted_is_said(server: httpx.Client, three: list[Dataset]) -> None:
    """400 for another reason or no UID, 404 for what is not there, 410 a second time."""
    assert server.delete(f"{instance_path(three[0])}?reason=1").status_code == 400
    assert server.delete("studies/1.2.x").status_code == 400
    assert server.delete(f"studies/{generate_uid()}").status_code == 404
    assert server.delete(instance_path(three[0])).status_code == 200
    assert server.delete(instance_path(three[0])).status_code == 410


def test_an_instance_whose_file_is_lost_can_be_rejected(
    server: httpx.Client, three: list[Dataset], sqlite_store: Store
) -> None:
    """The note is then made of what the index knows."""
    for path in kept_files(sqlite_store):
        path.unlink()
    answer = server.delete(f"studies/{three[0].StudyInstanceUID}")
    note = server.get(answer.headers["content-location"], headers={"Accept": "application/dicom"})

    assert pydicom.dcmread(io.BytesIO(note.content)).PatientID == "P1"
