"""The Image Library of an SR (PS3.16 TID 1600): the images that hold findings, with the descriptors they have.

highdicom's own needs descriptors that many images lack, and 300 images cost it seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeAlias

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from inference.findings import Findings

_MILLIMETRE = hd.sr.CodedConcept("mm", "UCUM", "millimeter")
_PIXELS = hd.sr.CodedConcept("{pixels}", "UCUM", "Pixels")
_COSINE = hd.sr.CodedConcept("{-1:1}", "UCUM", "{-1:1}")
_MODALITIES = {
    "CR": "Computed Radiography",
    "CT": "Computed Tomography",
    "DX": "Digital Radiography",
    "MR": "Magnetic Resonance",
    "NM": "Nuclear Medicine",
    "PT": "Positron emission tomography",
    "US": "Ultrasound",
    "XA": "X-Ray Angiography",
}
_POSITION = (
    ("110901", "Image Position (Patient) X"),
    ("110902", "Image Position (Patient) Y"),
    ("110903", "Image Position (Patient) Z"),
)
_ORIENTATION = (
    ("110904", "Image Orientation (Patient) Row X"),
    ("110905", "Image Orientation (Patient) Row Y"),
    ("110906", "Image Orientation (Patient) Row Z"),
    ("110907", "Image Orientation (Patient) Column X"),
    ("110908", "Image Orientation (Patient) Column Y"),
    ("110909", "Image Orientation (Patient) Column Z"),
)
_VECTORS = (
    ("ImagePositionPatient", _POSITION, _MILLIMETRE),
    ("ImageOrientationPatient", _ORIENTATION, _COSINE),
)
_Descriptor: TypeAlias = tuple[tuple[str, str], float | None, hd.sr.CodedConcept]
_ACQUISITION = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS


def planes_with_findings(outcome: Findings, limit: int) -> list[int]:
    """Return the planes for the image library: all where few, else those with the largest cross-sections.

    Parameters
    ----------
    outcome
        Masks are (Z, Y, X) on `outcome.frames`.
    limit
        Most planes returned.
    """
    if len(outcome.frames) <= limit:
        return list(range(len(outcome.frames)))
    area = np.zeros(len(outcome.frames), dtype=np.int64)  # (Z,)
    for segment in outcome.segments:
        area += [np.count_nonzero(plane) for plane in segment.mask]  # many times faster than a sum over two axes
    largest = np.argsort(-area, kind="stable")[:limit]
    return sorted(int(k) for k in largest if area[k] > 0)


def image_library(planes: Sequence[Dataset]) -> hd.sr.ContainerContentItem:
    """Return the Image Library container for stand-ins of the images, grouped by frame of reference."""
    library = hd.sr.ContainerContentItem(_dcm("111028", "Image Library"), relationship_type=_CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence()
    groups: dict[str | None, list[Dataset]] = {}
    for plane in planes:
        groups.setdefault(plane.get("FrameOfReferenceUID"), []).append(plane)
    for frame_of_reference, members in groups.items():
        library.ContentSequence.append(_group(frame_of_reference, members))
    return library


def _group(frame_of_reference: str | None, members: Sequence[Dataset]) -> hd.sr.ContainerContentItem:
    group = hd.sr.ContainerContentItem(_dcm("126200", "Image Library Group"), relationship_type=_CONTAINS)
    group.ContentSequence = hd.sr.ContentSequence()
    modality = str(members[0].get("Modality") or "OT")
    group.ContentSequence.append(
        hd.sr.CodeContentItem(
            _dcm("121139", "Modality"), _dcm(modality, _MODALITIES.get(modality, modality)), _ACQUISITION
        )
    )
    if frame_of_reference:
        name = _dcm("112227", "Frame of Reference UID")
        group.ContentSequence.append(hd.sr.UIDRefContentItem(name, frame_of_reference, _ACQUISITION))
    for plane in members:
        group.ContentSequence.append(_entry(plane))
    return group


def _entry(plane: Dataset) -> hd.sr.ImageContentItem:
    entry = hd.sr.ImageContentItem(
        name=hd.sr.CodedConcept("260753009", "SCT", "Source"),
        referenced_sop_class_uid=plane.SOPClassUID,
        referenced_sop_instance_uid=plane.SOPInstanceUID,
        relationship_type=_CONTAINS,
    )
    entry.ContentSequence = hd.sr.ContentSequence()
    for (value, meaning), number, unit in _descriptors(plane):
        if number is not None:
            item = hd.sr.NumContentItem(_dcm(value, meaning), float(number), unit, relationship_type=_ACQUISITION)
            entry.ContentSequence.append(item)
    return entry


def _descriptors(plane: Dataset) -> Iterator[_Descriptor]:
    """Yield name, value and unit of what is known of a plane (PS3.16 TID 1602, 1603, 1604)."""
    yield ("110910", "Pixel Data Rows"), plane.get("Rows"), _PIXELS
    yield ("110911", "Pixel Data Columns"), plane.get("Columns"), _PIXELS
    spacing = plane.get("PixelSpacing") or (None, None)
    yield ("111026", "Horizontal Pixel Spacing"), spacing[1], _MILLIMETRE
    yield ("111066", "Vertical Pixel Spacing"), spacing[0], _MILLIMETRE
    yield ("112226", "Spacing between slices"), plane.get("SpacingBetweenSlices"), _MILLIMETRE
    yield ("112225", "Slice Thickness"), plane.get("SliceThickness"), _MILLIMETRE
    for keyword, names, unit in _VECTORS:
        values = plane.get(keyword)
        if values:
            yield from zip(names, values, (unit,) * len(names), strict=True)


@cache
def _dcm(value: str, meaning: str) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(value, "DCM", meaning)
