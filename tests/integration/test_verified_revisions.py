"""What stands in SR, SEG, notes and FHIR after persons and algorithms have spoken in turn."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from gateway.config import Destination
from gateway.errors import ConflictError
from gateway.report import content as tree
from gateway.report import render_pictures
from gateway.store import Store
from gateway.store.results import list_artefacts
from gateway.store.tables import finding, rejection
from gateway.store.verifications import NOTE
from gateway.verification.verify import Verified
from gateway.worker.files import remove_unused
from inference.findings import NotEvaluable
from tests.unit.fhir import node
from tests.unit.report.outcomes import ALGORITHM, write_xray
from tests.verifying import OUTCOME, files_of, objects_of, resources, take_in_all, verdict, verifier, work
from tests.working import job_of

PACS = Destination(name="PACS", address="PACS@127.0.0.1:104")
MAPS = Destination(name="MAPS", address="MAPS@127.0.0.1:104", seg_encoding="LABELMAP")
VIRAL = {"class:0:fine": "viral"}
NO_LEFT_LUNG = {"remove:0:1": "1"}


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """Give a database; what depends on its kind is tested in `test_verification.py`."""
    return sqlite_store


@pytest.fixture
def study_uid(store: Store, tmp_path: Path) -> str:
    """Give a study of one made X-ray."""
    folder = tmp_path / "source"
    folder.mkdir()
    return take_in_all(store, write_xray(folder))


@pytest.fixture
def job_id(store: Store, study_uid: str) -> str:
    """Give the first revision of its results."""
    return work(store, study_uid, OUTCOME, [PACS])


def _verify(store: Store, job_id: str, action: str, fields: dict[str, str] | None = None) -> Verified:
    return verifier(store).verify(verdict(job_id, action, fields))


def _current(store: Store) -> list[tuple[str, str, float, bool]]:
    query = sa.select(finding.c.job_id, finding.c.name, finding.c.probability, finding.c.is_positive)
    with store.read() as connection:
        rows = connection.execute(query.where(finding.c.is_current).order_by(finding.c.id))
        return [tuple(row) for row in rows]


def _report(store: Store) -> dict[str, Any]:
    (report,) = resources(store, "DiagnosticReport")
    return report


def _observations(store: Store) -> list[dict[str, Any]]:
    return resources(store, "Observation")


def test_provenance_names_the_person_and_what_was_revised(store: Store, job_id: str) -> None:
    """The algorithm stays the author; the person is the verifier, for an organisation."""
    _verify(store, job_id, "accept")

    provenance: Any = resources(store, "Provenance")[-1]
    agents = {agent["type"]["coding"][0]["code"]: agent for agent in provenance["agent"]}
    assert set(agents) == {"author", "assembler", "verifier"}
    assert agents["verifier"]["who"]["display"] == "Marie Curie"
    assert agents["verifier"]["onBehalfOf"]["display"] == "Institut du Radium"
    assert provenance["entity"][1]["what"]["reference"] == f"DiagnosticReport/{_report(store)['id']}/_history/1"


def test_correcting_amends_what_was_wrong(store: Store, job_id: str) -> None:
    """Another class, one segment less: in SR, SEG, FHIR, findings, summary; the algorithm's answer stays known."""
    made = _verify(store, job_id, "correct", VIRAL | NO_LEFT_LUNG)

    documents = objects_of(store, made.job_id)
    assert set(documents) == {"sr-findings", "sr-measurements", "seg", NOTE}
    assert [each.SegmentLabel for each in documents["seg"].SegmentSequence] == ["Right lung"]
    assert len(tree.measurement_groups(documents["sr-measurements"])) == 1
    by_text = {str(each.get("valueCodeableConcept", {}).get("text")): each for each in _observations(store)}
    assert by_text["Viral pneumonia"]["status"] == "amended"
    assert "bacterial (65.4 %)" in by_text["Viral pneumonia"]["note"][0]["text"]
    assert "component" not in by_text["Viral pneumonia"], "the algorithm's probabilities are not of this answer"
    assert by_text["Pneumonia"]["status"] == "final"
    assert by_text["Pneumonia"]["component"]
    statuses = sorted(each["status"] for each in _observations(store))
    assert statuses == ["amended", *["entered-in-error"] * 3, *["final"] * 4]
    assert _report(store)["status"] == "amended"
    assert "Viral pneumonia (corrected)" in str(_report(store)["conclusion"])
    row = job_of(store, made.job_id)
    assert row.summary["outcomes"][0]["findings"][1]["was"] == "bacterial"
    assert row.summary["text"].startswith("corrected: pneumonia 0.90, viral,")
    assert _current(store) == [(made.job_id, "pneumonia", 0.9, True), (made.job_id, "viral", 0.345679, True)]


def test_the_segmentation_that_was_wrong_is_withdrawn(store: Store, job_id: str) -> None:
    """The note names the old one, which queries here no longer show."""
    old = objects_of(store, job_id)["seg"].SOPInstanceUID

    made = _verify(store, job_id, "correct", NO_LEFT_LUNG)

    note = objects_of(store, made.job_id)[NOTE]
    named = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in note.ContentSequence[1:]]
    assert named == [old]
    with store.read() as connection:
        hidden = connection.execute(sa.select(rejection.c.sop_instance_uid, rejection.c.note_sop_instance_uid)).all()
    assert [tuple(row) for row in hidden] == [(old, note.SOPInstanceUID)]


def _withdrawn(store: Store, job_id: str, variant: str = "") -> set[str]:
    """Return what the rejection note of a job names."""
    note = objects_of(store, job_id, variant)[NOTE]
    return {str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in note.ContentSequence[1:]}


def test_a_rejection_withdraws_every_revision_of_the_result(store: Store, study_uid: str) -> None:
    """The algorithm's report, the corrected and the accepted one, both segmentations: a destination may have them all.

    Results of the algorithm before are others.
    """
    work(store, study_uid, OUTCOME, [PACS])
    second = work(store, study_uid, OUTCOME, [PACS, MAPS])
    corrected = _verify(store, second, "correct", NO_LEFT_LUNG)
    accepted = _verify(store, corrected.job_id, "accept")
    revisions = (second, corrected.job_id, accepted.job_id)
    sent = {
        str(each.SOPInstanceUID) for one in revisions for kind, each in objects_of(store, one).items() if kind != NOTE
    }

    rejected = _verify(store, accepted.job_id, "reject")

    assert _withdrawn(store, rejected.job_id) == _withdrawn(store, rejected.job_id, "seg=LABELMAP") == sent
    with store.read() as connection:
        assert set(connection.scalars(sa.select(rejection.c.sop_instance_uid))) == sent


def test_a_result_of_which_nothing_is_left_can_be_rejected(store: Store, study_uid: str) -> None:
    """Without findings, and every segment removed: the note names what was sent before."""
    job_id = work(store, study_uid, replace(OUTCOME, findings=()))
    sent = {str(each.SOPInstanceUID) for each in objects_of(store, job_id).values()}
    empty = _verify(store, job_id, "correct", NO_LEFT_LUNG | {"remove:0:2": "1"})

    rejected = _verify(store, _verify(store, empty.job_id, "accept").job_id, "reject")

    assert _withdrawn(store, rejected.job_id) == sent


def test_no_segment_left_means_no_segmentation(store: Store, job_id: str) -> None:
    """Segmentation and measurements are withdrawn; what is verified next is the report of findings alone."""
    made = _verify(store, job_id, "correct", NO_LEFT_LUNG | {"remove:0:2": "1"})
    again = _verify(store, made.job_id, "accept")

    assert set(objects_of(store, made.job_id)) == {"sr-findings", NOTE}
    assert len(objects_of(store, made.job_id)[NOTE].ContentSequence) == 3
    assert set(objects_of(store, again.job_id)) == {"sr-findings"}
    assert _report(store)["status"] == "amended"


def test_a_destination_gets_verified_objects_in_its_variant(store: Store, study_uid: str) -> None:
    """The label map without the segment, and the report that refers to it; what is equal is kept once."""
    job_id = work(store, study_uid, OUTCOME, [PACS, MAPS])

    made = _verify(store, job_id, "correct", NO_LEFT_LUNG)

    own, standard = objects_of(store, made.job_id, "seg=LABELMAP"), objects_of(store, made.job_id)
    assert set(own) == {"seg", "sr-measurements", NOTE}
    assert own["seg"].SegmentationType == "LABELMAP"
    assert own["seg"].SOPInstanceUID == standard["seg"].SOPInstanceUID
    assert own[NOTE].ContentSequence[1].ReferencedSOPSequence[0].ReferencedSOPClassUID == own["seg"].SOPClassUID


def test_what_was_replaced_or_rejected_is_not_verified(store: Store, job_id: str, study_uid: str) -> None:
    """The sentences say which revision to look at, and what to do after a rejection."""
    second = work(store, study_uid, OUTCOME)
    with pytest.raises(ConflictError, match="replaced by revision 2"):
        _verify(store, job_id, "accept")

    rejected = _verify(store, second, "reject")
    with pytest.raises(ConflictError, match="reprocess the study"):
        _verify(store, rejected.job_id, "accept")


def test_a_reprocess_does_not_hide_a_persons_word(store: Store, job_id: str, study_uid: str) -> None:
    """R4 knows no way from final to preliminary: amended, and the text says that this one is not verified."""
    _verify(store, job_id, "accept")

    third = work(store, study_uid, OUTCOME)

    assert _report(store)["status"] == "amended"
    assert "resultsInterpreter" not in _report(store)
    conclusion = str(_report(store)["conclusion"])
    assert "An earlier result was verified and accepted by Marie Curie" in conclusion
    assert conclusion.endswith("Result of an algorithm, not verified by a person.")
    assert [each["status"] for each in resources(store, "DiagnosticReport", is_current=False)] == [
        "preliminary",
        "final",
        "amended",
    ]
    entity: Any = resources(store, "Provenance")[-1]["entity"]
    assert entity[1]["what"]["reference"].endswith("/_history/2")
    _verify(store, third, "accept")
    assert _report(store)["status"] == "amended"


def test_after_a_rejection_a_new_result_is_preliminary(store: Store, job_id: str, study_uid: str) -> None:
    """What was withdrawn is withdrawn; nothing final stands. Accepted, it is final."""
    _verify(store, job_id, "reject")

    second = work(store, study_uid, OUTCOME)
    assert _report(store)["status"] == "preliminary"
    assert {each["status"] for each in _observations(store)} == {"preliminary"}

    _verify(store, second, "accept")
    assert _report(store)["status"] == "final"


def test_what_is_not_evaluable_can_be_accepted(store: Store, study_uid: str) -> None:
    """The report that says so becomes final."""
    withheld = NotEvaluable(ALGORITHM, "projection", "lateral view", OUTCOME.series_instance_uid)
    job_id = work(store, study_uid, withheld)

    made = _verify(store, job_id, "accept")

    assert objects_of(store, made.job_id)["sr-findings"].VerificationFlag == "VERIFIED"
    assert _report(store)["status"] == "final"


def test_files_of_a_verification_that_never_came_are_swept(store: Store, job_id: str, study_uid: str) -> None:
    """What a crash leaves between file and row goes, and what rows name stays; a retry then works."""
    word = verifier(store)
    before = set((store.data_dir / "results").rglob("*.dcm"))

    class PowerCut(RuntimeError):
        pass

    def fail(_connection: object, _finished: object, /) -> list[Any]:
        raise PowerCut

    word._render_fhir = fail
    with pytest.raises(PowerCut):
        word.verify(verdict(job_id, "accept"))
    orphans = set((store.data_dir / "results").rglob("*.dcm")) - before
    assert len(orphans) == 2

    assert remove_unused(store, older_than_s=-1) == len(orphans)
    assert set((store.data_dir / "results").rglob("*.dcm")) == before
    made = _verify(store, job_id, "accept")
    assert remove_unused(store, older_than_s=-1) == 0
    assert all(path.is_file() for path in files_of(store, made.job_id).values())


def test_every_version_is_valid_r4(store: Store, job_id: str, study_uid: str, tmp_path: Path) -> None:
    """Two independent validators find no error in what acceptance, correction and rejection write."""
    corrected = _verify(store, job_id, "correct", VIRAL | NO_LEFT_LUNG | {"comment": "Seen\n好"})
    _verify(store, _verify(store, corrected.job_id, "accept").job_id, "reject")
    _verify(store, work(store, study_uid, OUTCOME), "accept")

    kinds = ("DiagnosticReport", "Observation", "Provenance")
    written: list[Any] = [each for kind in kinds for each in resources(store, kind, is_current=False)]
    assert {each["status"] for each in written if "status" in each} == {
        "preliminary",
        "final",
        "amended",
        "entered-in-error",
    }
    assert node.complaints(written, tmp_path) == []


def test_the_artefacts_are_told_as_queries_need_them(store: Store, job_id: str) -> None:
    """Modality, numbers and descriptions stand in the rows, as in those of the worker."""
    made = _verify(store, job_id, "correct", NO_LEFT_LUNG)

    with store.read() as connection:
        rows = {each.kind: each for each in list_artefacts(connection, made.job_id) if each.modality}
    assert {kind: row.modality for kind, row in rows.items()} == {
        "sr-findings": "SR",
        "sr-measurements": "SR",
        "seg": "SEG",
        NOTE: "KO",
    }
    assert rows["seg"].number_of_frames == 1


@pytest.mark.parametrize("fields", [NO_LEFT_LUNG, NO_LEFT_LUNG | {"remove:0:2": "1"}])
def test_the_overlay_shows_what_stays(store: Store, job_id: str, tmp_path: Path, fields: dict[str, str]) -> None:
    """Drawn anew from the new segmentation: as the worker draws an outcome without the segment; none is left out."""
    made = _verify(store, job_id, "correct", fields)

    left = {1} | ({2} if len(fields) > 1 else set())
    kept = replace(OUTCOME, segments=tuple(each for each in OUTCOME.segments if each.number not in left))
    drawn = render_pictures(kept, sorted((tmp_path / "source").glob("*.dcm")))["overlay"]
    with store.read() as connection:
        (picture,) = (each for each in list_artefacts(connection, made.job_id) if each.media_type == "image/png")
    shown, wanted = (
        np.asarray(Image.open(io.BytesIO(content))).astype(int)
        for content in ((store.data_dir / picture.path).read_bytes(), drawn)
    )
    assert shown.shape == wanted.shape
    # Below the line of text, which names the segments; colours went through 16 bits.
    assert np.abs(shown - wanted)[: shown.shape[0] * 3 // 4].max() <= 2
