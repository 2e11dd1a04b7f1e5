"""Results made from real studies, judged by other people's validators and read by other people's readers."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from gateway.report import RenderedObject, render_outcome
from gateway.report.assignment import Assignment
from inference.findings import Findings, HeatMap, LabelSet, NotEvaluable, Outcome, SourceFrame
from tests import validators
from tests.studies import RealData
from tests.unit.report.outcomes import ALGORITHM, findings_of_two_levels, lungs, write_xray, xray_findings

_ASSIGNMENT = Assignment(uuid.UUID(int=11), 1, "", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
_Threshold = Callable[[NDArray[np.float32]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Case:
    """One real series with an outcome made from its pixels."""

    outcome: Outcome
    sources: Sequence[Path]


def _air(voxels: NDArray[np.float32]) -> NDArray[np.bool_]:
    return (voxels > -1000) & (voxels < -500)


def _bright(voxels: NDArray[np.float32]) -> NDArray[np.bool_]:
    return voxels > voxels.mean()


def _series(files: Sequence[Path], wanted: Callable[[Dataset], bool]) -> tuple[list[Dataset], list[Path]]:
    """Give the images of the first series that is wanted, along the normal, and their files in disk order."""
    images = [(pydicom.dcmread(path), path) for path in files]
    uid = next(image.SeriesInstanceUID for image, _ in images if wanted(image))
    members = [(image, path) for image, path in images if image.SeriesInstanceUID == uid]
    along = sorted(members, key=lambda member: float(member[0].ImagePositionPatient[2]))
    return [image for image, _ in along], [path for _, path in members]


def _halves(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Part a (Z, Y, X) mask at the middle column."""
    left, right = mask.copy(), mask.copy()
    middle = mask.shape[-1] // 2
    left[..., :middle], right[..., middle:] = False, False
    return left, right


def _volume(files: Sequence[Path], threshold: _Threshold, wanted: Callable[[Dataset], bool]) -> Case:
    images, paths = _series(files, wanted)
    voxels = np.stack([apply_modality_lut(image.pixel_array, image) for image in images]).astype(np.float32)
    frames = tuple(SourceFrame(image.SOPInstanceUID) for image in images)
    segments = lungs(*_halves(threshold(voxels)))
    return Case(Findings(ALGORITHM, images[0].SeriesInstanceUID, frames, segments=segments), paths)


def _xray(path: Path) -> Case:
    image = pydicom.dcmread(path)
    frame = SourceFrame(image.SOPInstanceUID)
    pixels = image.pixel_array.astype(np.float32)
    heat = HeatMap("pneumonia", "coarse", frame, pixels / pixels.max())
    segments = lungs(*_halves((pixels < np.median(pixels))[np.newaxis]))
    coarse, fine = findings_of_two_levels()
    levels = (replace(coarse, label_set=LabelSet(("pneumonia", "normal"), 0.9), epistemic=0.0123), fine)
    findings = Findings(ALGORITHM, image.SeriesInstanceUID, (frame,), levels, segments, (heat,))
    return Case(findings, [path])


def _case(name: str, studies: dict[str, list[Path]]) -> Case:
    if name == "xray":
        return _xray(studies["xrays"][0])
    if name == "not-evaluable":
        images, paths = _series(studies["mr"], lambda _: True)
        reason = "Modality MR; CT was expected."
        return Case(NotEvaluable(ALGORITHM, "modality", reason, images[0].SeriesInstanceUID), paths)
    if name == "mr":
        return _volume(studies["mr"], _bright, lambda image: image.get("SeriesDescription") == "HippoCrop")
    return _volume(studies[name], _air, lambda _: True)


@pytest.fixture(scope="module", params=["ct-philips", "ct-siemens", "mr", "xray", "not-evaluable"])
def case(request: pytest.FixtureRequest, real_data: RealData) -> Case:
    """Give one real series; the Siemens CT is part of the shared data only."""
    studies = real_data.studies()
    name = request.param if request.param in (*studies, "xray", "not-evaluable") else "ct-philips"
    return _case(name, studies)


@pytest.fixture(scope="module")
def results(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RenderedObject, Path]]:
    """Render the case, from files in reverse order, and write the objects."""
    folder = tmp_path_factory.mktemp("results")
    written = {}
    for each in render_outcome(case.outcome, _ASSIGNMENT, case.sources[::-1]):
        path = folder / f"{each.reference.kind}.dcm"
        pydicom.dcmwrite(path, each.dataset, enforce_file_format=True)
        written[each.reference.kind] = (each, path)
    return written


def test_every_object_conforms_to_its_iod(results: dict[str, tuple[RenderedObject, Path]]) -> None:
    """Neither dciodvfy nor, for reports, dsrdump finds an error."""
    for kind, (_, path) in results.items():
        assert validators.dciodvfy(path) == [], kind
        if kind.startswith("sr-"):
            assert validators.dsrdump(path) == [], kind


def test_every_report_conforms_to_its_templates(results: dict[str, tuple[RenderedObject, Path]]) -> None:
    """PixelMed, the validator of IHE Connectathons, finds no error."""
    for kind, (_, path) in results.items():
        if kind.startswith("sr-"):
            assert validators.pixelmed(path) == [], kind


def test_results_agree_with_their_study(case: Case, results: dict[str, tuple[RenderedObject, Path]]) -> None:
    """Patient, study and series are told alike by the source and by all results."""
    assert validators.dcentvfy([*case.sources, *(path for _, path in results.values())]) == []


def test_segments_lie_where_the_masks_are(case: Case, results: dict[str, tuple[RenderedObject, Path]]) -> None:
    """Dcmqi rebuilds the volume from the SEG and finds every voxel of every mask in its place."""
    if not isinstance(case.outcome, Findings):
        assert list(results) == ["sr-findings"]
        return

    read = validators.segimage2itkimage(results["seg"][1])

    for segment in case.outcome.segments:
        np.testing.assert_array_equal(read[segment.number], segment.mask)


def test_measurements_are_read_by_dcmqi(case: Case, results: dict[str, tuple[RenderedObject, Path]]) -> None:
    """Dcmqi finds the values, the units and the tracking UIDs that the SEG has."""
    if not isinstance(case.outcome, Findings):
        assert list(results) == ["sr-findings"]
        return

    groups = validators.tid1500reader(results["sr-measurements"][1])["Measurements"]

    assert isinstance(groups, list)
    segments = results["seg"][0].dataset.SegmentSequence
    assert [group["TrackingUniqueIdentifier"] for group in groups] == [s.TrackingUID for s in segments]
    values = [[float(item["value"]) for item in group["measurementItems"]] for group in groups]
    assert values == [[1234.5], [1234.5, -812.5]]


@pytest.fixture(scope="module")
def made_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a finding report that all validators accept."""
    folder = tmp_path_factory.mktemp("made")
    (report,) = (
        each
        for each in render_outcome(xray_findings(), _ASSIGNMENT, write_xray(folder))
        if each.reference.kind == "sr-findings"
    )
    path = folder / "report.dcm"
    pydicom.dcmwrite(path, report.dataset, enforce_file_format=True)
    return path


def _spoilt(report: Path, name: str, change: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(report)
    change(dataset)
    path = report.with_name(f"{name}.dcm")
    dataset.save_as(path)
    return path


def test_a_planted_fault_is_found_by_each_validator(made_report: Path) -> None:
    """The checks above can fail: each program is shown a fault of its own field."""

    def foreign_procedure(report: Dataset) -> None:
        (item,) = (i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058")
        item.ConceptCodeSequence[0].CodeValue = "0"

    def no_flag(report: Dataset) -> None:
        del report.CompletionFlag

    def no_value(report: Dataset) -> None:
        del report.ContentSequence[0].ConceptCodeSequence

    def other_patient(report: Dataset) -> None:
        report.PatientName, report.SOPInstanceUID = "Other^Name", "2.25.1"

    assert validators.pixelmed(_spoilt(made_report, "template", foreign_procedure))
    assert validators.dciodvfy(_spoilt(made_report, "iod", no_flag))
    assert validators.dsrdump(_spoilt(made_report, "tree", no_value))
    assert validators.dcentvfy([made_report, _spoilt(made_report, "patient", other_patient)])
    with pytest.raises(RuntimeError, match="segimage2itkimage"):
        validators.segimage2itkimage(made_report)
