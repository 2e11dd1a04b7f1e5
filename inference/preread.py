"""Instances read and decoded before the rest of their series has come.

What is kept is what `volume` reads of a file: its header, and the modality values of its frames. Both follow from the
file alone, so that a volume is the same, bit for bit, whether its planes were read ahead or not. What cannot be read
is not kept: whoever reads the series says why.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from inference.decode import DECODED_APART, SeparateDecoder
from inference.errors import NotEvaluableError
from inference.instance import read_header, read_instance, text
from inference.pixels import AIR_HU, Coding, Target, fill, read_coding
from inference.plane import (
    CT_CLASSES,
    PROJECTION_CLASSES,
    Plane,
    check_kind,
    cross_sectional_planes,
    projection_plane,
)

_NOT_AHEAD = DECODED_APART | {DeflatedExplicitVRLittleEndian}
"""Transfer syntaxes that need a process of their own, or whose size shows only as they are inflated."""
_LARGEST_FILE_BYTES = 1 << 28
"""A larger one is read with its series: it is a series by itself."""

Identity: TypeAlias = tuple[int, int, int]
"""Device, inode and size of a file."""


def identify(path: Path) -> Identity:
    """Return what tells a file from another one at its place; a file that is written once has its content for good."""
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size


def coding_of(header: Dataset) -> Coding:
    """Return how an instance's stored values are to be read; NotEvaluableError where it is no diagnostic image."""
    check_kind(header)
    sop_class = text(header, "SOPClassUID")
    background = AIR_HU if sop_class in CT_CLASSES else None
    return read_coding(header, is_projection=sop_class in PROJECTION_CLASSES, background=background)


def planes_of(header: Dataset, path: Path) -> Sequence[Plane]:
    """Return an instance's planes; NotEvaluableError where they cannot be placed."""
    if text(header, "SOPClassUID") in PROJECTION_CLASSES:
        return (projection_plane(header, path),)
    return tuple(cross_sectional_planes(header, path))


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What was read of a file."""

    identity: Identity
    header: Dataset
    coding: Coding
    frames: Mapping[int, Target]
    """By index, filled."""

    @property
    def size_bytes(self) -> int:
        return sum(target.out.nbytes for target in self.frames.values())


class Preread:
    """Instances in memory, up to a limit; safe to use from several threads.

    Parameters
    ----------
    limit_bytes
        Largest sum of the frames' values as float32.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: dict[Path, _Kept] = {}
        self._free_bytes = limit_bytes
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How much is held."""
        return self._limit_bytes - self._free_bytes

    def read(self, path: Path) -> bool:
        """Read a file and keep it; False where it is not kept: there is no room, or it cannot be read so.

        Raises
        ------
        OSError
            The file is not there, or the disk fails.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote attributes' values
            try:
                kept = self._read(path)
            except (NotEvaluableError, MemoryError):
                return False
        return kept is not None and self._keep(path, kept)

    def forget(self, paths: Collection[Path]) -> None:
        """Let go of files."""
        with self._lock:
            for path in paths:
                kept = self._kept.pop(path, None)
                self._free_bytes += 0 if kept is None else kept.size_bytes

    def header(self, path: Path, limit_bytes: int) -> Dataset | None:
        """Return a file's header; None where it is not kept, is larger than the limit, or is another file by now."""
        kept = self._find(path)
        return None if kept is None or kept.identity[2] > limit_bytes else kept.header

    def fill(self, path: Path, coding: Coding, targets: Mapping[int, Target]) -> bool:
        """Write frames into their targets; False, with nothing written, where not all of them are kept as wanted."""
        kept = self._find(path)
        if kept is None or kept.coding != coding:
            return False
        frames = [(kept.frames.get(index), target) for index, target in targets.items()]
        if not all(frame is not None and _is_same(frame, target) for frame, target in frames):
            return False
        for frame, target in frames:
            target.out[...] = frame.out if frame is not None else 0
        return True

    def _find(self, path: Path) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(path)
        return kept if kept is not None and kept.identity == identify(path) else None

    def _keep(self, path: Path, kept: _Kept) -> bool:
        with self._lock:
            if path in self._kept or kept.size_bytes > self._free_bytes:
                return path in self._kept
            self._kept[path] = kept
            self._free_bytes -= kept.size_bytes
            return True

    def _read(self, path: Path) -> _Kept | None:
        identity = identify(path)
        header = read_header(path, _LARGEST_FILE_BYTES)
        if header.file_meta.get("TransferSyntaxUID") in _NOT_AHEAD:
            return None
        coding = coding_of(header)
        planes = planes_of(header, path)
        if not planes or sum(4 * plane.rows * plane.columns for plane in planes) > self._free_bytes:
            return None
        frames = {plane.index: _target(plane) for plane in planes}
        with SeparateDecoder() as apart:  # is not needed, and therefore not started
            fill(read_instance(path), path, coding, frames, apart)
        return _Kept(identity, header, coding, frames) if identity == identify(path) else None


def _target(plane: Plane) -> Target:
    values: NDArray[np.float32] = np.empty((plane.rows, plane.columns), dtype=np.float32)
    return Target(values, plane.slope, plane.intercept)


def _is_same(frame: Target, wanted: Target) -> bool:
    return (frame.slope, frame.intercept, frame.out.shape) == (wanted.slope, wanted.intercept, wanted.out.shape)
