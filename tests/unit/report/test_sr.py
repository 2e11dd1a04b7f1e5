"""The structured reports: what a reader finds in their content trees."""

import io
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from pydicom.dataset import Dataset

from gateway.report import RenderOptions, render_outcome
from gateway.report.assignment import ObjectReference, derived_uid
from gateway.report.equipment import device_uid
from inference.findings import Code, LabelSet, NotEvaluable, Outcome
from tests.unit.report.outcomes import (
    ALGORITHM,
    SERIES_UID,
    assignment,
    instance_uid,
    volume_findings,
    write_series,
    write_xray,
    xray_findings,
)


def _report(kind: str, outcome: Outcome, files: list[Path], **arguments: object) -> hd.sr.Comprehensive3DSR:
    """Render, write, and read the report with highdicom."""
    given = arguments.pop("given", assignment())
    objects = render_outcome(outcome, given, files, **arguments)  # type: ignore[arg-type]  # passed on as they came
    (dataset,) = (each.dataset for each in objects if each.reference.kind == kind)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    buffer.seek(0)
    return hd.sr.srread(buffer)


def _tracking(role: str) -> str:
    return derived_uid(assignment().job_id, 1, f"tracking/{role}")


def test_each_level_of_the_hierarchy_is_a_group(tmp_path: Path) -> None:
    """Question, answer, probability in percent, site and tracking UID stand in one TID 1501 group per level."""
    files = write_xray(tmp_path)

    report = _report("sr-findings", xray_findings(), files)

    coarse, fine = report.content.get_image_measurement_groups()
    assert (coarse.tracking_uid, fine.tracking_uid) == (_tracking("coarse"), _tracking("fine"))
    shares = [next(m.value for m in g.get_measurements() if m.name.value == "122157") for g in (coarse, fine)]
    assert shares == [90.0, 65.4321]
    assert fine.get_measurements()[0].unit.value == "%"
    evaluations = fine.get_qualitative_evaluations()
    assert ("Type of pneumonia", "Bacterial pneumonia") in [(e.name.meaning, e.value.meaning) for e in evaluations]
    assert fine.finding_sites[0].value.meaning == "Lung"


def test_a_level_tells_how_undecided_the_algorithm_is(tmp_path: Path) -> None:
    """The spread over the classes stands beside the probability, and the model's part of it where it is told."""
    outcome = xray_findings()
    parted = replace(outcome.findings[0], epistemic=0.0123)

    report = _report("sr-findings", replace(outcome, findings=(parted, *outcome.findings[1:])), write_xray(tmp_path))

    told = [
        [(m.name.value, m.name.scheme_designator, m.value, m.unit.value) for m in group.get_measurements()][1:]
        for group in report.content.get_image_measurement_groups()
    ]
    assert told == [
        [("uncertainty", "99HYBRIDMED", 46.8996, "%"), ("epistemic", "99HYBRIDMED", 1.23, "%")],
        [("uncertainty", "99HYBRIDMED", 93.015, "%")],
    ]
    assert told[0][0][2] == pytest.approx(100 * parted.uncertainty, abs=1e-4)


def test_the_classes_that_hold_the_true_one_are_a_comment(tmp_path: Path) -> None:
    """Where the model states a coverage they are named with it in the level's group; else there is no comment."""
    outcome = xray_findings()
    stated = replace(outcome.findings[0], label_set=LabelSet(("pneumonia", "normal"), 0.9))

    report = _report("sr-findings", replace(outcome, findings=(stated, *outcome.findings[1:])), write_xray(tmp_path))

    groups = report.content.get_image_measurement_groups()
    comments = [[each.value for each in group[0].ContentSequence if each.name.value == "121106"] for group in groups]
    assert comments == [
        ["By the algorithm one of: Pneumonia, Normal. So it is in 90 % of cases like those of its calibration."],
        [],
    ]


def test_a_lower_level_names_the_answer_it_follows_from(tmp_path: Path) -> None:
    """Under the fine answer stands the coarse one, with its tracking UID, as what it was inferred from."""
    report = _report("sr-findings", xray_findings(), write_xray(tmp_path))

    groups = report.content.get_image_measurement_groups()
    (answer,) = (i for i in groups[1][0].ContentSequence if i.name.value == "pneumonia-type")
    (parent,) = answer.ContentSequence
    assert (parent.RelationshipType, parent.value.meaning) == ("INFERRED FROM", "Pneumonia")
    assert parent.ContentSequence[0].value == _tracking("coarse")


def test_measurements_refer_to_their_segments(tmp_path: Path) -> None:
    """A volume's groups are TID 1411, share the segments' tracking UIDs and leave out what was not measured."""
    files = write_series(tmp_path, 3)

    report = _report("sr-measurements", volume_findings(files), files)

    left, right = report.content.get_volumetric_roi_measurement_groups()
    assert (left.tracking_uid, right.tracking_uid) == (_tracking("lung-left"), _tracking("lung-right"))
    assert [m.value for m in left.get_measurements()] == [1234.5]
    assert [m.value for m in right.get_measurements()] == [1234.5, -812.5]
    item = right.referenced_segment[0]
    assert item.ReferencedSOPSequence[0].ReferencedSegmentNumber == 2
    assert right.referenced_segment.source_series_for_segmentation.value == SERIES_UID


def test_measurements_of_an_xray_are_planar(tmp_path: Path) -> None:
    """A projection image's groups are TID 1410 and refer to the frames of the segments."""
    report = _report("sr-measurements", xray_findings(), write_xray(tmp_path))

    groups = report.content.get_planar_roi_measurement_groups()
    references = [group[0].ContentSequence for group in groups]
    frames = [
        item.ReferencedSOPSequence[0].ReferencedFrameNumber
        for content in references
        for item in content
        if item.name.value == "121214"
    ]
    assert frames == [1, 2]


def test_evidence_lists_everything_referred_to(tmp_path: Path) -> None:
    """The images and the SEG stand in Current Requested Procedure Evidence."""
    files = write_series(tmp_path, 3)
    objects = render_outcome(volume_findings(files), assignment(), files)
    by_kind = {each.reference.kind: each for each in objects}

    study = by_kind["sr-measurements"].dataset.CurrentRequestedProcedureEvidenceSequence[0]

    listed = {i.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
    seg = by_kind["seg"].reference.sop_instance_uid
    assert listed == {*(instance_uid(k) for k in range(3)), seg}


def test_report_is_preliminary_and_names_the_algorithm(tmp_path: Path) -> None:
    """Nothing is verified; name, version and weights stand in the content and in the equipment."""
    report = _report("sr-findings", xray_findings(), write_xray(tmp_path))

    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    (equipment,) = report.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Algorithm"
    assert equipment.DeviceUID == device_uid(ALGORITHM)
    texts = {i.value for g in report.content.get_image_measurement_groups() for i in g[0].ContentSequence
             if i.name.value in ("111001", "111002", "111003")}  # fmt: skip
    assert texts == {"test-model", "1.2.3", f"weights=sha256:{'ab' * 32}"}


def test_device_uid_follows_the_weights() -> None:
    """The same name and version with other weights is another device."""
    other = replace(ALGORITHM, weights_digest="cd" * 32)

    assert device_uid(other) != device_uid(ALGORITHM)


def test_not_evaluable_is_a_report_with_the_reason(tmp_path: Path) -> None:
    """What could not be evaluated is said in a finding report, in words and with the stable code."""
    files = write_series(tmp_path, 2)
    outcome = NotEvaluable(ALGORITHM, "geometry.uneven", "Gaps of 3 to 6 mm, not \u2264 1 mm.", SERIES_UID)

    report = _report("sr-findings", outcome, files)

    (group,) = report.content.get_image_measurement_groups()
    (comment,) = (i.value for i in group[0].ContentSequence if i.name.value == "121106")
    assert comment.startswith("Not evaluable (geometry.uneven): Gaps of 3 to 6 mm")
    answers = {e.name.value: e.value.meaning for e in group.get_qualitative_evaluations()}
    assert answers["evaluability"] == "Not Evaluated"


def test_not_evaluable_without_a_series_takes_the_first_file(tmp_path: Path) -> None:
    """A study that no series of fits still gets its report, in the right study."""
    files = write_xray(tmp_path)

    report = _report("sr-findings", NotEvaluable(ALGORITHM, "modality", "DX; CT expected."), files)

    assert report.PatientID == "T-1"
    study = report.CurrentRequestedProcedureEvidenceSequence[0]
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == instance_uid(0)


def test_replaced_reports_are_predecessors(tmp_path: Path) -> None:
    """A new revision names the SRs that it replaces, and only those."""
    old = [
        ObjectReference(kind, "2.25.100", f"2.25.5{n}", sop_class, f"2.25.6{n}")
        for n, (kind, sop_class) in enumerate(
            [("sr-findings", "1.2.840.10008.5.1.4.1.1.88.34"), ("seg", "1.2.840.10008.5.1.4.1.1.66.4")]
        )
    ]

    report = _report("sr-findings", xray_findings(), write_xray(tmp_path), given=assignment(2, tuple(old)))

    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == ["2.25.60"]


def test_title_is_the_destinations_choice(tmp_path: Path) -> None:
    """A viewer that fails on one title may be sent another."""
    title = Code("126001", "DCM", "Oncology Measurement Report")

    report = _report("sr-findings", xray_findings(), write_xray(tmp_path), options=RenderOptions(sr_title=title))

    assert report.ConceptNameCodeSequence[0].CodeValue == "126001"


def test_request_of_the_source_is_the_reports_request(tmp_path: Path) -> None:
    """Requested procedure and accession number of the order stand in the Referenced Request Sequence."""

    def order(header: Dataset) -> None:
        item = Dataset()
        item.RequestedProcedureID, item.ScheduledProcedureStepID = "RP-7", "SPS-7"
        header.RequestAttributesSequence = [item]

    report = _report("sr-findings", xray_findings(), write_xray(tmp_path, order))

    (request,) = report.ReferencedRequestSequence
    assert (request.RequestedProcedureID, request.AccessionNumber) == ("RP-7", "A-1")


@pytest.mark.parametrize("planes", [3, 40])
def test_image_library_stays_small(tmp_path: Path, planes: int) -> None:
    """At most eight images stand in the library: those with the largest cross-sections."""
    files = write_series(tmp_path, planes)
    outcome = volume_findings(files)

    report = _report("sr-measurements", outcome, files)

    (library,) = (i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028")
    entries = [i for i in library.ContentSequence[0].ContentSequence if i.ValueType == "IMAGE"]
    assert len(entries) == min(planes, 8)
