"""The overlay picture of a verified result, drawn from its segmentation: what a person removed is not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.report.picture import render_pictures
from gateway.report.verified_seg import unpacked
from inference.findings import Findings, SourceFrame

_LARGEST = 65535
"""Of an unsigned 16-bit colour value (PS3.3 C.10.7.1.1)."""


def redrawn_overlay(outcome: Findings, segmentation: Dataset, sources: Sequence[Path]) -> bytes:
    """Return the overlay as PNG.

    Parameters
    ----------
    outcome
        As the person left it, without masks.
    segmentation
        BINARY Segmentation with the segments that stay; where none stays, the one before, which tells the planes.
    sources
        Files of the evaluated series.

    Raises
    ------
    NotFoundError
        The evaluated series, or one of its frames, is not among `sources`.
    """
    return render_pictures(_drawn(outcome, segmentation), sources)["overlay"]


def _drawn(outcome: Findings, segmentation: Dataset) -> Findings:
    """Return the outcome with the masks, the frames and the colours that a segmentation holds."""
    pixels = unpacked(segmentation)  # (frames, Y, X)
    places = [_place(groups) for groups in segmentation.PerFrameFunctionalGroupsSequence]
    uids = [str(each.ReferencedSOPInstanceUID) for each in segmentation.SourceImageSequence]
    planes = sorted(
        {frame for _, frame in places}, key=lambda one: (uids.index(one.sop_instance_uid), one.frame_number or 0)
    )
    masks: dict[int, NDArray[np.bool_]] = {
        int(each.SegmentNumber): np.zeros((len(planes), *pixels.shape[1:]), dtype=np.bool_)
        for each in segmentation.SegmentSequence
    }
    for (number, frame), mask in zip(places, pixels, strict=True):
        masks[number][planes.index(frame)] |= mask.astype(np.bool_)
    colours = {int(each.SegmentNumber): _colour(each) for each in segmentation.SegmentSequence}
    segments = tuple(
        replace(each, mask=masks[each.number], color_lab=colours[each.number]) for each in outcome.segments
    )
    return replace(outcome, frames=tuple(planes), segments=segments, heat_maps=())


def _place(groups: Dataset) -> tuple[int, SourceFrame]:
    """Return segment number and source frame of one frame of the segmentation."""
    source = groups.DerivationImageSequence[0].SourceImageSequence[0]
    number = source.get("ReferencedFrameNumber")
    frame = SourceFrame(str(source.ReferencedSOPInstanceUID), None if number is None else int(number))
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber), frame


def _colour(segment: Dataset) -> tuple[float, float, float]:
    """Return the recommended display colour as CIELab (PS3.3 C.10.7.1.1)."""
    lightness, a, b = (float(value) for value in segment.RecommendedDisplayCIELabValue)
    return 100 * lightness / _LARGEST, 255 * a / _LARGEST - 128, 255 * b / _LARGEST - 128
