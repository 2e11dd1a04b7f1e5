"""A segmentation without the segments that a person removed; the pixels of the others stay as they were."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.report.assignment import ObjectReference
from gateway.report.verified import Replacement, renew
from gateway.verification.verdict import Verification

_SEGMENT_NUMBER = 0x0062000B
"""Referenced Segment Number, as Dimension Index Pointer."""
_LABEL_LENGTH = 64
Frames = NDArray[np.uint8]
"""(frames, rows, columns) uint8 or uint16: 0 and 1, or, in a label map, segment numbers."""


def without_segments(
    predecessor: Dataset, removed: Collection[int], *, reference: ObjectReference, verification: Verification
) -> tuple[Dataset, Replacement]:
    """Return the new segmentation, and where segments and frames have gone.

    Segments are numbered anew from 1 (PS3.3 C.8.20.2); they keep their tracking UIDs.

    Parameters
    ----------
    predecessor
        A Segmentation (BINARY) or Label Map Segmentation, uncompressed, with its pixels; it stays as it is.
    removed
        Segment numbers; not all of them.
    reference
        The new object's identity.
    """
    dataset = copy.deepcopy(predecessor)
    kept = [each for each in dataset.SegmentSequence if int(each.SegmentNumber) not in removed]
    own = sorted(int(each.SegmentNumber) for each in kept if int(each.SegmentNumber) > 0)
    numbers = {0: 0} | {number: new for new, number in enumerate(own, start=1)}
    pixels = unpacked(dataset)
    is_label_map = dataset.BitsAllocated > 1
    if is_label_map:
        frames = list(range(len(pixels)))
        pixels = _renumbered(pixels, numbers)
    else:
        frames = _frames_of(dataset, own)
    for each in kept:
        each.SegmentNumber = numbers[int(each.SegmentNumber)]
    dataset.SegmentSequence = kept
    if not frames:  # those that stay are empty, and had no frame: one is due all the same
        frames, pixels = [0], np.zeros_like(pixels)
        _segment_of(dataset, 0).ReferencedSegmentNumber = own[0]
    _keep_frames(dataset, frames, numbers, is_label_map=is_label_map)
    _pack(dataset, pixels[frames])
    dataset.ContentDescription = ", ".join(str(each.SegmentLabel) for each in kept)[:_LABEL_LENGTH]
    renew(dataset, reference, verification.verified_at)
    if "ContentCreatorName" in dataset:
        del dataset.ContentCreatorName
    frame_numbers = {old + 1: new for new, old in enumerate(frames, start=1)}
    return dataset, Replacement(str(predecessor.SOPInstanceUID), reference, numbers, frame_numbers)


def _frames_of(dataset: Dataset, numbers: Sequence[int]) -> list[int]:
    """Return the positions, from 0, of the frames of these segments."""
    count = len(dataset.PerFrameFunctionalGroupsSequence)
    return [k for k in range(count) if int(_segment_of(dataset, k).ReferencedSegmentNumber) in numbers]


def _segment_of(dataset: Dataset, frame: int) -> Dataset:
    """Return the Segment Identification item of a frame, from 0 (PS3.3 C.8.20.3)."""
    groups: Dataset = dataset.PerFrameFunctionalGroupsSequence[frame]
    if "SegmentIdentificationSequence" not in groups:
        groups = dataset.SharedFunctionalGroupsSequence[0]
    item: Dataset = groups.SegmentIdentificationSequence[0]
    return item


def _keep_frames(dataset: Dataset, frames: Sequence[int], numbers: dict[int, int], *, is_label_map: bool) -> None:
    groups = [dataset.PerFrameFunctionalGroupsSequence[k] for k in frames]
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(groups)
    if not is_label_map:
        for item in {id(item): item for item in (_segment_of(dataset, k) for k in range(len(groups)))}.values():
            item.ReferencedSegmentNumber = numbers[int(item.ReferencedSegmentNumber)]
    _rank_dimensions(dataset, groups, numbers)


def _rank_dimensions(dataset: Dataset, groups: Sequence[Dataset], numbers: dict[int, int]) -> None:
    """Renumber the values of each dimension from 1 without a gap (PS3.3 C.7.6.17.2)."""
    contents = [each.FrameContentSequence[0] for each in groups if "FrameContentSequence" in each]
    rows = [_values(each.get("DimensionIndexValues")) for each in contents]
    if not rows or not all(rows):
        return
    columns = []
    for pointer, values in zip(dataset.DimensionIndexSequence, zip(*rows, strict=True), strict=True):
        if pointer.DimensionIndexPointer == _SEGMENT_NUMBER:
            columns.append([numbers.get(value, 1) for value in values])
        else:
            ranks = {value: rank for rank, value in enumerate(sorted(set(values)), start=1)}
            columns.append([ranks[value] for value in values])
    for item, row in zip(contents, zip(*columns, strict=True), strict=True):
        item.DimensionIndexValues = list(row)


def _values(element: object) -> list[int]:
    if element is None:
        return []
    return [int(each) for each in element] if hasattr(element, "__iter__") else [int(str(element))]


def unpacked(dataset: Dataset) -> Frames:
    """Return the frames; bits are packed without regard to frames, the first in the lowest (PS3.5 8.1.1)."""
    shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
    count = shape[0] * shape[1] * shape[2]
    if dataset.BitsAllocated > 1:
        kind = np.dtype("<u1" if dataset.BitsAllocated <= 8 else "<u2")  # noqa: PLR2004 -- bits of a byte
        return np.frombuffer(dataset.PixelData, dtype=kind)[:count].reshape(shape)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, dtype=np.uint8), bitorder="little")
    return bits[:count].reshape(shape)  # (frames, rows, columns)


def _renumbered(pixels: Frames, numbers: dict[int, int]) -> Frames:
    table = np.zeros(int(pixels.max(initial=0)) + 1, dtype=pixels.dtype)
    for old, new in numbers.items():
        if old < len(table):
            table[old] = new
    return table[pixels]


def _pack(dataset: Dataset, pixels: Frames) -> None:
    is_binary = dataset.BitsAllocated == 1
    content = np.packbits(pixels.ravel(), bitorder="little").tobytes() if is_binary else pixels.tobytes()
    dataset.PixelData = content + b"\x00" * (len(content) % 2)
