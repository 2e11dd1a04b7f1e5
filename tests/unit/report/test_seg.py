"""The Segmentation: every voxel on its source plane, every segment told in codes."""

import io
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from gateway.report import RenderOptions, render_outcome
from gateway.report.assignment import derived_uid
from inference.findings import Findings, SourceFrame
from tests.unit.report.outcomes import (
    ALGORITHM,
    SERIES_UID,
    assignment,
    distinct_masks,
    instance_uid,
    lungs,
    volume_findings,
    write_multi_frame,
    write_series,
    write_xray,
    xray_findings,
)


def _segmentation(outcome: Findings, files: list[Path], options: RenderOptions | None = None) -> hd.seg.Segmentation:
    objects = render_outcome(outcome, assignment(), files, options=options or RenderOptions())
    (seg,) = (each.dataset for each in objects if each.reference.kind == "seg")
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, seg, enforce_file_format=True)
    buffer.seek(0)
    return hd.seg.segread(buffer)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
def test_masks_lie_on_their_source_planes(tmp_path: Path, order: list[int], encoding: str) -> None:
    """Whatever the order of the files and of the planes, each mask is read back from its source instance."""
    files = write_series(tmp_path, 4)
    left, right = distinct_masks(4)

    seg = _segmentation(volume_findings(files, order), files[::-1], RenderOptions(seg_encoding=encoding))

    uids = [instance_uid(k) for k in range(4)]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert seg.segmentation_type.value == encoding
    np.testing.assert_array_equal(pixels, np.stack([left, right], axis=-1))


def test_frames_of_a_multi_frame_source_are_named(tmp_path: Path) -> None:
    """A mask on two frames of an Enhanced CT refers to those frames and has their positions."""
    files = write_multi_frame(tmp_path, 5)
    left, right = distinct_masks(2)
    frames = (SourceFrame(instance_uid(0), 4), SourceFrame(instance_uid(0), 2))

    seg = _segmentation(Findings(ALGORITHM, SERIES_UID, frames, segments=lungs(left, right)), files)

    sources = {
        (
            groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            float(groups.PlanePositionSequence[0].ImagePositionPatient[2]),
        ): groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for groups in seg.PerFrameFunctionalGroupsSequence
    }
    assert sources == {(1, 42.5): 4, (1, 47.5): 2, (2, 42.5): 4, (2, 47.5): 2}
    (instance,) = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == instance_uid(0)


def test_segment_is_described_in_codes(tmp_path: Path) -> None:
    """Category, type, laterality, colour, algorithm and tracking identifiers stand in the segment."""
    files = write_series(tmp_path, 3)

    seg = _segmentation(volume_findings(files), files)

    left = seg.SegmentSequence[0]
    kind = left.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeMeaning == "Lung"
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert left.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical structure"
    assert left.RecommendedDisplayCIELabValue == [39321, 38036, 25186]
    assert left.TrackingUID == derived_uid(assignment().job_id, 1, "tracking/lung-left")
    assert ALGORITHM.weights_digest in left.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


@pytest.mark.parametrize("planes", [1, 3])
def test_empty_segments_are_written(tmp_path: Path, planes: int) -> None:
    """A model that finds no voxel still gets its segments, with nothing in them."""
    files = write_series(tmp_path, planes)
    outcome = volume_findings(files)
    nothing = np.zeros_like(outcome.segments[0].mask)

    seg = _segmentation(replace(outcome, segments=lungs(nothing, nothing)), files)

    assert seg.number_of_segments == 2
    assert not seg.pixel_array.any()


def test_overlapping_segments_are_binary(tmp_path: Path) -> None:
    """A label map cannot hold two segments in one voxel, so BINARY is written instead."""
    files = write_series(tmp_path, 3)
    outcome = volume_findings(files)
    left, _ = distinct_masks(3)

    options = RenderOptions(seg_encoding="LABELMAP")
    seg = _segmentation(replace(outcome, segments=lungs(left, left)), files, options)

    pixels = seg.get_pixels_by_source_instance([instance_uid(k) for k in range(3)])
    np.testing.assert_array_equal(pixels, np.stack([left, left], axis=-1))


def test_projection_image_gets_a_frame_of_reference(tmp_path: Path) -> None:
    """The segments of an X-ray lie in a frame of reference of their own, along the patient's axes."""
    files = write_xray(tmp_path)
    left, right = distinct_masks(1)

    seg = _segmentation(xray_findings(), files)

    shared = seg.SharedFunctionalGroupsSequence[0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 0, -1]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.2, 0.2]
    np.testing.assert_array_equal(seg.pixel_array.astype(bool), np.concatenate([left, right]))


def test_missing_slice_thickness_becomes_the_gap(tmp_path: Path) -> None:
    """A series that does not tell its thickness is segmented all the same."""

    def drop(header: Dataset) -> None:
        del header.SliceThickness

    files = write_series(tmp_path, 3, drop)

    seg = _segmentation(volume_findings(files), files)

    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 2.5
