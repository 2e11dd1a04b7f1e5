"""Verified reports and segmentations without what was removed, made from rendered ones."""

from __future__ import annotations

import io
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from gateway.report import RenderOptions, render_outcome
from gateway.report import content as tree
from gateway.report.assignment import ObjectReference, derived_uid
from gateway.report.rejection_note import PATIENT_SAFETY, QUALITY, NoteIdentity, render_rejection_note
from gateway.report.summary import read_outcomes, summarise
from gateway.report.verified import Replacement, encoded, verified_report
from gateway.report.verified_seg import without_segments
from gateway.verification.corrections import Changes, correct
from gateway.verification.verdict import Verification, read_verdict
from inference.findings import Code, Findings
from tests.unit.report.outcomes import (
    assignment,
    distinct_masks,
    lungs,
    volume_findings,
    write_multi_frame,
    write_series,
    write_xray,
    xray_findings,
)

AT = datetime(2026, 3, 2, 23, 30, tzinfo=UTC)
WORD = Verification("correct", "Curie^Marie", "Institut du Radium", "", AT, "j", "d")
_NEW_JOB = uuid.UUID(int=9)


def _rendered(outcome: Findings, files: list[Path], encoding: str = "BINARY") -> dict[str, Dataset]:
    options = RenderOptions(seg_encoding=encoding)
    return {each.reference.kind: each.dataset for each in render_outcome(outcome, assignment(), files, options=options)}


def _changes(outcome: Findings, fields: dict[str, str]) -> Changes:
    verdict = read_verdict({"job_id": "j", "action": "correct", "observer": "A B", **fields})
    return correct(read_outcomes(summarise([outcome]), outcome.algorithm), verdict)[1][0]


def _reference(dataset: Dataset, kind: str) -> ObjectReference:
    series, instance = derived_uid(_NEW_JOB, 2, f"series/{kind}"), derived_uid(_NEW_JOB, 2, f"instance/{kind}")
    return ObjectReference(kind, str(dataset.StudyInstanceUID), series, str(dataset.SOPClassUID), instance)


def _verified(
    dataset: Dataset,
    kind: str,
    *,
    word: Verification = WORD,
    changes: Changes | None = None,
    replacement: Replacement | None = None,
) -> Dataset:
    """Verify a report, and read back what was written."""
    document = verified_report(
        dataset,
        reference=_reference(dataset, kind),
        verification=word,
        changes=changes or Changes(),
        tracking_uid=lambda name: derived_uid(assignment().job_id, 1, f"tracking/{name}"),
        replacement=replacement,
    )
    return _read(document)


def _read(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(encoded(dataset)))


def _values(document: Dataset, name: Code) -> list[str]:
    """Return the values of the items with this name, in the order of the tree."""
    return [
        item.ConceptCodeSequence[0].CodeMeaning if item.ValueType == "CODE" else str(item.get("TextValue") or item.UID)
        for item in tree.below(document)
        if tree.is_named(item, name)
    ]


def test_an_accepted_report_says_who_and_keeps_every_item(tmp_path: Path) -> None:
    """Flags, verifying observer, person observer and predecessor are new; the measurement groups are not touched."""
    before = _rendered(xray_findings(), write_xray(tmp_path))["sr-findings"]

    after = _verified(before, "sr-findings", word=replace(WORD, action="accept"))

    assert (after.VerificationFlag, after.PreliminaryFlag, after.CompletionFlag) == ("VERIFIED", "FINAL", "COMPLETE")
    (observer,) = after.VerifyingObserverSequence
    assert (observer.VerifyingObserverName, observer.VerifyingOrganization) == ("Curie^Marie", "Institut du Radium")
    assert observer.VerificationDateTime == "20260302233000.000000+0000"
    (study,) = after.PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert _values(after, tree.OBSERVER_TYPE) == ["Device", "Person"]
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert [group.to_json() for group in tree.measurement_groups(after)] == [
        group.to_json() for group in tree.measurement_groups(before)
    ]
    assert before.VerificationFlag == "UNVERIFIED"


def test_a_corrected_answer_is_the_persons(tmp_path: Path) -> None:
    """Finding and answer change; the algorithm's name and probability leave the group, and a comment tells them."""
    outcome = xray_findings()
    before = _rendered(outcome, write_xray(tmp_path))["sr-findings"]

    after = _verified(before, "sr-findings", changes=_changes(outcome, {"class:0:fine": "viral"}))

    coarse, fine = tree.measurement_groups(after)
    assert coarse.to_json() == tree.measurement_groups(before)[0].to_json()
    assert tree.tracking_uid(fine) == tree.tracking_uid(tree.measurement_groups(before)[1])
    assert _values(fine, tree.FINDING) == ["Viral pneumonia"]
    assert _values(fine, tree.COMMENT) == ["Corrected by Marie Curie. Before: Bacterial pneumonia (65.4 %)."]
    names = {item.ConceptNameCodeSequence[0].CodeMeaning for item in tree.children(fine)}
    assert names.isdisjoint({"Probability", "Uncertainty", "Algorithm Name", "Algorithm Version"})


def test_an_answer_that_no_longer_stands_leaves_the_report(tmp_path: Path) -> None:
    """'Normal' has no kind of pneumonia below it."""
    outcome = xray_findings()
    before = _rendered(outcome, write_xray(tmp_path))["sr-findings"]

    after = _verified(before, "sr-findings", changes=_changes(outcome, {"class:0:coarse": "normal"}))

    assert [_values(group, tree.FINDING) for group in tree.measurement_groups(after)] == [["Normal"]]


def test_a_second_person_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """The first one's word stays in the predecessor."""
    first = _verified(_rendered(xray_findings(), write_xray(tmp_path))["sr-findings"], "sr-findings")

    second = _verified(first, "sr-findings", word=replace(WORD, observer="Joliot^Irene"))

    assert _values(second, tree.OBSERVER_TYPE) == ["Device", "Person"]
    assert [str(each.VerifyingObserverName) for each in second.VerifyingObserverSequence] == ["Joliot^Irene"]
    named = [item.PersonName for item in tree.below(second) if item.ValueType == "PNAME"]
    assert [str(name) for name in named] == ["Joliot^Irene"]


@pytest.mark.parametrize(("declared", "name"), [(None, "Test^Case"), ("ISO_IR 100", "Tést^Case"), ("GB18030", "王^小")])
def test_a_name_in_any_script_fits_beside_any_patient(tmp_path: Path, declared: str | None, name: str) -> None:
    """Where the study's character set lacks the observer's letters, the whole report turns to UTF-8."""

    def change(header: Dataset) -> None:
        if declared:
            header.SpecificCharacterSet = declared
        header.PatientName = name

    before = _rendered(xray_findings(), write_xray(tmp_path, change))["sr-findings"]
    after = _verified(before, "sr-findings", word=replace(WORD, observer="李^明", organisation="协和"))

    assert str(after.VerifyingObserverSequence[0].VerifyingObserverName) == "李^明"
    assert str(after.PatientName) == name
    assert after.SpecificCharacterSet == ("GB18030" if declared == "GB18030" else "ISO_IR 192")


def test_the_dates_are_in_the_studys_zone(tmp_path: Path) -> None:
    """As those of the first report."""

    def change(header: Dataset) -> None:
        header.TimezoneOffsetFromUTC = "+0100"

    files = write_xray(tmp_path, change)
    after = _verified(_rendered(xray_findings(), files)["sr-findings"], "sr-findings")
    source = pydicom.dcmread(files[0])
    identity = NoteIdentity("2.25.1", "2.25.2", AT)
    note = render_rejection_note([_reference(source, "seg")], QUALITY, source=source, identity=identity)

    for each in (after, note):
        assert each.TimezoneOffsetFromUTC == "+0100"
        assert (each.ContentDate, each.ContentTime) == ("20260303", "003000.000000")


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("kind", ["xray", "series", "multi-frame"])
def test_the_segments_that_stay_keep_their_pixels(tmp_path: Path, kind: str, encoding: str) -> None:
    """Highdicom reads from the new segmentation what the old one held, under its new number and old tracking UID."""
    if kind == "xray":
        files, outcome = write_xray(tmp_path), xray_findings()
    else:
        files = write_series(tmp_path, 3) if kind == "series" else write_multi_frame(tmp_path, 3)
        outcome = volume_findings(files) if kind == "series" else _of_frames(files)
    before = _rendered(outcome, files, encoding)["seg"]

    made, replacement = without_segments(before, {1}, reference=_reference(before, "seg"), verification=WORD)
    after = hd.seg.segread(io.BytesIO(encoded(made)))

    (segment,) = (each for each in after.SegmentSequence if each.SegmentNumber > 0)
    assert segment.TrackingUID == before.SegmentSequence[-1].TrackingUID
    assert (segment.SegmentNumber, after.SOPInstanceUID) == (1, replacement.new.sop_instance_uid)
    uids = [frame.sop_instance_uid for frame in outcome.frames]
    if kind == "multi-frame":
        numbers = [frame.frame_number for frame in outcome.frames]
        pixels = after.get_pixels_by_source_frame(uids[0], numbers, [1], assert_missing_frames_are_empty=True)
    else:
        pixels = after.get_pixels_by_source_instance(uids, [1], assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(pixels[..., 0].astype(bool), outcome.segments[1].mask)


def test_a_segment_that_stays_and_is_empty_has_its_frame(tmp_path: Path) -> None:
    """No segmentation is without frames."""
    files = write_series(tmp_path, 3)
    left, right = distinct_masks(3)
    outcome = replace(volume_findings(files), segments=lungs(left, np.zeros_like(right)))
    before = _rendered(outcome, files)["seg"]

    after = _read(without_segments(before, {1}, reference=_reference(before, "seg"), verification=WORD)[0])

    assert after.NumberOfFrames == 1
    assert not after.pixel_array.any()
    (frame,) = after.PerFrameFunctionalGroupsSequence
    assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("is_xray", [True, False])
def test_the_measurements_follow_their_segments(tmp_path: Path, is_xray: bool, encoding: str) -> None:
    """The removed segment's group is gone; the other refers to the new segmentation, as the evidence does."""
    files = write_xray(tmp_path) if is_xray else write_series(tmp_path, 3)
    outcome = xray_findings() if is_xray else volume_findings(files)
    before = _rendered(outcome, files, encoding)
    seg = before["seg"]
    _, replacement = without_segments(seg, {1}, reference=_reference(seg, "seg"), verification=WORD)

    after = _verified(
        before["sr-measurements"],
        "sr-measurements",
        changes=_changes(outcome, {"remove:0:1": "1"}),
        replacement=replacement,
    )

    (group,) = tree.measurement_groups(after)
    referenced = [target for item in tree.below(group) for target in item.get("ReferencedSOPSequence") or ()]
    (target,) = (each for each in referenced if each.ReferencedSOPInstanceUID == replacement.new.sop_instance_uid)
    assert target.get("ReferencedSegmentNumber", 1) == 1
    assert target.get("ReferencedFrameNumber", 1) == 1
    assert seg.SOPInstanceUID not in after.to_json()
    assert replacement.new.series_instance_uid in str(after.CurrentRequestedProcedureEvidenceSequence)


def test_the_comment_stays_where_its_first_group_goes(tmp_path: Path) -> None:
    """It stands in the first group that stays, not in that of the segment that was removed."""
    outcome = xray_findings()
    before = _rendered(outcome, write_xray(tmp_path))["sr-measurements"]
    changes = _changes(outcome, {"remove:0:1": "1"})

    after = _verified(before, "sr-measurements", word=replace(WORD, comment="Not a lung"), changes=changes)

    assert [_values(group, tree.COMMENT) for group in tree.measurement_groups(after)] == [["Not a lung"]]


def test_a_note_names_what_it_withdraws(tmp_path: Path) -> None:
    """Reports as COMPOSITE, images as IMAGE, all of them in the evidence; the title is the reason."""
    objects = [_reference(each, kind) for kind, each in _rendered(xray_findings(), write_xray(tmp_path)).items()]
    source = pydicom.dcmread(write_xray(tmp_path)[0])

    note = render_rejection_note(
        objects, PATIENT_SAFETY, source=source, identity=NoteIdentity("2.25.1", "2.25.2", AT), description="错"
    )

    read = _read(note)
    assert read.ConceptNameCodeSequence[0].CodeValue == "113037"
    assert [item.ValueType for item in read.ContentSequence] == [
        "TEXT",
        "COMPOSITE",
        "IMAGE",
        "COMPOSITE",
        *["IMAGE"] * 2,
    ]
    assert read.ContentSequence[0].TextValue == "错"
    (study,) = read.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence) == len(objects)
    assert (read.PatientID, read.Modality) == (source.PatientID, "KO")


@pytest.mark.parametrize(("count", "code"), [(0, QUALITY), (1, Code("113000", "DCM", "Of Interest"))])
def test_a_note_of_nothing_or_for_no_reason_is_refused(tmp_path: Path, count: int, code: Code) -> None:
    """It would withdraw nothing, or be no rejection note."""
    source = pydicom.dcmread(write_xray(tmp_path)[0])
    objects = [_reference(source, "seg")] * count

    with pytest.raises(ValueError, match="rejection note"):
        render_rejection_note(objects, code, source=source, identity=NoteIdentity("2.25.1", "2.25.2", AT))


def _of_frames(files: list[Path]) -> Findings:
    """Give two lungs on the frames of a multi-frame instance."""
    uid = str(pydicom.dcmread(files[0]).SOPInstanceUID)
    outcome = volume_findings([files[0]] * 3)
    frames = tuple(replace(frame, sop_instance_uid=uid, frame_number=k + 1) for k, frame in enumerate(outcome.frames))
    return replace(outcome, frames=frames)
