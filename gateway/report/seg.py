"""Segments as a DICOM Segmentation (PS3.3 A.51) on the planes of the source series."""

from __future__ import annotations

import math
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.report.equipment import concept, identification_sequence
from gateway.report.identity import RenderedObject, Rendering, finish, own_text
from gateway.report.modules import put_request_attributes
from gateway.report.source import stand_in
from inference.findings import Findings, Segment, SourceFrame

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_LAST_AXIS_IS_SEGMENT = 4
_DIRECTIONS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "H": 2, "F": 2}
_FRONTAL = ("L", "F")
_SINGLE_FRAME_CLASS = "1.2.840.10008.5.1.4.1.1.7"
"""Shown to highdicom for every plane; the true classes and frame numbers are put in afterwards."""


def render_segmentation(rendering: Rendering, outcome: Findings) -> RenderedObject:
    """Return the segments of `outcome` as one Segmentation, one segment each, also where a mask is empty.

    Raises
    ------
    ValueError
        Several planes without a position in the patient: such images need one outcome each.
    """
    segments = sorted(outcome.segments, key=lambda segment: segment.number)
    masks = _label_map(segments)
    is_label_map = masks.ndim < _LAST_AXIS_IS_SEGMENT
    encoding = rendering.options.seg_encoding if is_label_map else "BINARY"
    reference = rendering.reference("seg", _LABEL_MAP_SEGMENTATION if encoding == "LABELMAP" else _SEGMENTATION)
    dataset = hd.seg.Segmentation(
        source_images=_planes(rendering, outcome.frames),
        pixel_array=masks,
        segmentation_type=encoding,
        segment_descriptions=[_description(rendering, segment) for segment in segments],
        series_instance_uid=reference.series_instance_uid,
        series_number=rendering.series_number("seg"),
        sop_instance_uid=reference.sop_instance_uid,
        instance_number=1,
        manufacturer=outcome.algorithm.manufacturer,
        manufacturer_model_name=outcome.algorithm.name,
        software_versions=outcome.algorithm.version,
        device_serial_number=outcome.algorithm.weights_digest,
        content_label="SEGMENTATION",
        content_description=own_text(rendering, ", ".join(segment.label for segment in segments))[:64],
        series_description=own_text(rendering, f"{outcome.algorithm.name} segmentation")[:64],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=len(outcome.frames) > 1 and bool(masks.any()),
    )
    _refer_to_source(rendering, dataset, outcome.frames)
    _name_dimensions(rendering, dataset)
    put_request_attributes(rendering.source.study, dataset)
    return finish(rendering, reference, dataset)


def _label_map(segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """Return the segments' numbers as (Z, Y, X) uint8, or, where segments overlap, (Z, Y, X, S) of 0 and 1."""
    labels = np.zeros(segments[0].mask.shape, dtype=np.uint8)  # (Z, Y, X)
    for segment in segments:
        for labelled, mask in zip(labels, segment.mask, strict=True):  # (Y, X), which fit the processor's cache
            if labelled[mask].any():
                return np.stack([each.mask for each in segments], axis=-1).astype(np.uint8)  # (Z, Y, X, S)
            np.putmask(labelled, mask, segment.number)
    return labels


def _description(rendering: Rendering, segment: Segment) -> hd.seg.SegmentDescription:
    description = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=own_text(rendering, segment.label)[:64],
        segmented_property_category=concept(segment.category),
        segmented_property_type=concept(segment.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identification_sequence(rendering.algorithm),
        tracking_uid=rendering.uid(f"tracking/{segment.tracking_id}"),
        tracking_id=segment.tracking_id,
        display_color=hd.color.CIELabColor(*segment.color_lab),
    )
    if segment.laterality is not None:
        modifiers = [concept(segment.laterality)]
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifiers
    return description


def _planes(rendering: Rendering, frames: Sequence[SourceFrame]) -> list[Dataset]:
    """Return one stand-in per plane, each with the name of its position in `frames` for an instance UID."""
    planes = [stand_in(rendering.source.header(frame), frame) for frame in frames]
    for number, plane in enumerate(planes):
        plane.SOPClassUID = _SINGLE_FRAME_CLASS
        plane.SOPInstanceUID = _plane_name(number)
    if len(planes) == 1 and "ImagePositionPatient" not in planes[0]:
        _lay_out(planes[0], rendering.uid("frame-of-reference/seg"))
    gap_mm = _gap_mm(planes)
    for plane in planes:
        plane.setdefault("SliceThickness", gap_mm)
    return planes


def _gap_mm(planes: Sequence[Dataset]) -> str:
    """Return the distance of the first two planes in mm, for images that do not tell their thickness; else 1."""
    positions = [plane.ImagePositionPatient for plane in planes[:2] if "ImagePositionPatient" in plane]
    gap_mm = math.dist(*positions) if len(positions) == len(planes[:2]) > 1 else 0.0
    return f"{gap_mm or 1.0:.6g}"


def _lay_out(plane: Dataset, frame_of_reference_uid: str) -> None:
    """Give a projection image a frame of reference of its own, in the plane of its detector.

    The standard lets the segmentation of such an image go without geometry (PS3.3 C.8.20.2), but dcmqi and viewers
    refuse it then. The axes follow Patient Orientation, as far as it names them; the origin is the first pixel.
    """
    plane.FrameOfReferenceUID = frame_of_reference_uid
    plane.ImagePositionPatient = [0, 0, 0]
    axes = [str(axis)[:1] for axis in plane.get("PatientOrientation") or ()]
    if len(axes) != len(_FRONTAL) or len({_AXIS.get(axis) for axis in axes} - {None}) != len(_FRONTAL):
        axes = list(_FRONTAL)
    plane.ImageOrientationPatient = [cosine for axis in axes for cosine in _DIRECTIONS[axis]]
    plane.setdefault("PixelSpacing", [1, 1])


def _plane_name(number: int) -> str:
    return f"2.25.{number + 1}"


def _refer_to_source(rendering: Rendering, dataset: Dataset, frames: Sequence[SourceFrame]) -> None:
    """Replace the planes' names by true references (PS3.3 tables 10-3 and C.12-8)."""
    by_name = {_plane_name(number): frame for number, frame in enumerate(frames)}
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in groups.get("DerivationImageSequence") or ():
            for item in derivation.SourceImageSequence:
                frame = by_name.get(item.ReferencedSOPInstanceUID)
                if frame is None:  # the segments of one plane share their items
                    continue
                _point_at(rendering, item, frame)
                if frame.frame_number is not None:
                    item.ReferencedFrameNumber = frame.frame_number
    instances = []
    for uid in dict.fromkeys(frame.sop_instance_uid for frame in frames):
        item = Dataset()
        _point_at(rendering, item, SourceFrame(uid))
        instances.append(item)
    dataset.SourceImageSequence = instances
    series = Dataset()
    series.SeriesInstanceUID = str(rendering.source.study.SeriesInstanceUID)
    series.ReferencedInstanceSequence = instances
    dataset.ReferencedSeriesSequence = [series]


def _point_at(rendering: Rendering, item: Dataset, frame: SourceFrame) -> None:
    item.ReferencedSOPClassUID = rendering.source.header(frame).SOPClassUID
    item.ReferencedSOPInstanceUID = frame.sop_instance_uid


def _name_dimensions(rendering: Rendering, dataset: Dataset) -> None:
    """Give the dimension organization a UID that a retry derives again."""
    uid = rendering.uid("dimensions/seg")
    for item in (*dataset.get("DimensionOrganizationSequence", ()), *dataset.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = uid


def segment_frame(segmentation: Dataset, number: int) -> int | None:
    """Return the number, from 1, of the first frame that holds a segment; None in a label map."""
    for position, groups in enumerate(segmentation.PerFrameFunctionalGroupsSequence, start=1):
        identified = groups.get("SegmentIdentificationSequence")
        if identified and identified[0].ReferencedSegmentNumber == number:
            return position
    return None
