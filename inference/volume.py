"""DICOM instances of one series -> volumes: voxels with geometry.

Voxels are (Z, Y, X) everywhere; affines lead from voxel index (x, y, z, 1) to millimetres LPS. How planes are ordered
and when they count as even is said in `geometry`, how stored values become modality values in `pixels`.

A series yields one volume per projection image, and one per regular stack of planes: several orientations,
acquisitions, echoes or temporal positions in one series become several volumes, the largest first. Localizers,
secondary captures and mosaics are left out. What was left out, and why, stands in `SeriesVolumes.refusals`.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from inference.decode import SeparateDecoder
from inference.errors import NotEvaluableError
from inference.findings import SourceFrame
from inference.geometry import find_stacks, tilt_deg
from inference.instance import read_header, read_instance, text
from inference.pixels import Coding, Target, fill
from inference.plane import PROJECTION_CLASSES, Plane
from inference.preread import Preread, coding_of, planes_of

MAX_VOLUME_BYTES = 8 << 30
"""Largest sum of a series' voxels as float32; larger ones are refused before anything is allocated."""

LEFT_OUT = frozenset(
    {"pixels.colour", "series.localizer", "series.mosaic", "series.secondary-capture", "series.unsupported"}
)
"""Refusals that say an instance is no plane of a stack; any other spoils the series, a plane of which is lost."""

ATTRIBUTES = (
    "BodyPartExamined",
    "BurnedInAnnotation",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "ImageLaterality",
    "ImageType",
    "KVP",
    "Laterality",
    "LossyImageCompression",
    "MagneticFieldStrength",
    "Manufacturer",
    "ManufacturerModelName",
    "PatientAge",
    "PatientOrientation",
    "PatientPosition",
    "PhotometricInterpretation",
    "PresentationIntentType",
    "ProtocolName",
    "RescaleType",
    "ScanningSequence",
    "SeriesDescription",
    "SliceThickness",
    "SOPClassUID",
    "StudyDescription",
    "Units",
    "ViewPosition",
)


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Voxels of one projection image or one stack of planes."""

    voxels: NDArray[np.float32]
    """(Z, Y, X) float32, modality values: HU in CT. Projection images are (1, Y, X), low values dark. Padding
    holds -1000 in CT, elsewhere the lowest other value of its plane."""
    affine_lps: NDArray[np.float64] | None
    """(4, 4): voxel index (x, y, z, 1) to mm LPS, right-handed, sheared where the gantry was tilted; None for
    projection images."""
    spacing_mm: tuple[float, float, float] | None
    """(z, y, x); z is the perpendicular distance between planes. Projection images: (1, y, x) of PixelSpacing, else
    ImagerPixelSpacing; None if unknown."""
    frames: tuple[SourceFrame, ...]
    """Source frame of each plane z."""
    series_instance_uid: str
    modality: str
    attributes: Mapping[str, str]
    """Keyword to value for those of `ATTRIBUTES` that the first plane's instance holds."""

    @property
    def tilt_deg(self) -> float:
        """Angle between stacking direction and planes' normal; 0 unless the gantry was tilted."""
        return 0.0 if self.affine_lps is None else tilt_deg(self.affine_lps)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesVolumes:
    """All that a series yields."""

    volumes: tuple[Volume, ...]
    refusals: tuple[NotEvaluableError, ...]
    """Why images or groups of planes were left out."""


@dataclass(frozen=True, slots=True, eq=False)
class _Instance:
    """An instance's header, kept until its pixels are read."""

    path: Path
    header: Dataset
    coding: Coding
    is_projection: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """A volume before its pixels are read."""

    planes: tuple[Plane, ...]
    affine_lps: NDArray[np.float64] | None
    spacing_mm: tuple[float, float, float] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.planes), self.planes[0].rows, self.planes[0].columns


def load_volumes(paths: Sequence[Path], *, limit_bytes: int = MAX_VOLUME_BYTES) -> tuple[Volume, ...]:
    """Load the volumes of one series, the largest first.

    Parameters
    ----------
    paths
        The Part 10 files of one series, in any order.
    limit_bytes
        Largest sum of voxels as float32.

    Raises
    ------
    NotEvaluableError
        When nothing in the series is usable; with the reason that holds for most of it.
    """
    loaded = load_series(paths, limit_bytes=limit_bytes)
    if not loaded.volumes:
        raise _main_reason(loaded.refusals)
    return loaded.volumes


def load_series(
    paths: Sequence[Path], *, limit_bytes: int = MAX_VOLUME_BYTES, preread: Preread | None = None
) -> SeriesVolumes:
    """Load what is usable of one series, with the reasons for what is not.

    A projection image that cannot be decoded leaves the others standing; a plane that cannot be decoded spoils its
    stack. Warnings of pydicom are silenced, as they quote attributes' values. What `preread` keeps is not read again.

    Raises
    ------
    NotEvaluableError
        When the series as a whole cannot be used: a file that cannot be read, or more voxels than the limit.
    OSError
        When a file is not there or the disk fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _load(paths, limit_bytes, preread)
        except MemoryError:
            raise NotEvaluableError("pixels.too-large", "The series does not fit into this machine's memory.") from None


def _load(paths: Sequence[Path], limit_bytes: int, preread: Preread | None) -> SeriesVolumes:
    instances, refusals = _read_instances(paths, limit_bytes, preread)
    plans, unplaced = _plan(instances.values())
    refusals += unplaced
    wanted = sum(4 * math.prod(plan.shape) for plan in plans)
    if wanted > limit_bytes:
        reason = f"The series declares {wanted >> 20} MiB of voxels, the limit is {limit_bytes >> 20} MiB."
        raise NotEvaluableError("pixels.too-large", reason)
    voxels = [np.empty(plan.shape, dtype=np.float32) for plan in plans]
    failed = _fill_all(plans, voxels, instances, preread)
    refusals += failed.values()
    volumes = tuple(
        _volume(plan, array, instances)
        for plan, array in zip(plans, voxels, strict=True)
        if not any(plane.frame.sop_instance_uid in failed for plane in plan.planes)
    )
    return SeriesVolumes(volumes, tuple(refusals))


def _read_instances(
    paths: Sequence[Path], limit_bytes: int, preread: Preread | None
) -> tuple[dict[str, _Instance], list[NotEvaluableError]]:
    """Read all headers; return those of diagnostic images by SOP Instance UID, and why others are left out."""
    instances: dict[str, _Instance] = {}
    refusals: list[NotEvaluableError] = []
    series: set[str] = set()
    for path in sorted(paths):
        known = None if preread is None else preread.header(path, limit_bytes)
        header = read_header(path, limit_bytes) if known is None else known
        series.add(text(header, "SeriesInstanceUID"))
        is_projection = text(header, "SOPClassUID") in PROJECTION_CLASSES
        try:
            coding = coding_of(header)
        except NotEvaluableError as refusal:
            if not (is_projection or refusal.code in LEFT_OUT):
                raise
            refusals.append(refusal)
            continue
        instances.setdefault(text(header, "SOPInstanceUID"), _Instance(path, header, coding, is_projection))
    if len(series) > 1:
        raise ValueError(f"the files belong to {len(series)} series, expected one")
    return instances, refusals


def _plan(instances: Iterable[_Instance]) -> tuple[list[_Plan], list[NotEvaluableError]]:
    """Return what is to be read: projection images one by one, planes as stacks; the largest first."""
    plans: list[_Plan] = []
    refusals: list[NotEvaluableError] = []
    planes: list[Plane] = []
    for instance in instances:
        if not instance.is_projection:
            planes += planes_of(instance.header, instance.path)
            continue
        try:
            (plane,) = planes_of(instance.header, instance.path)
        except NotEvaluableError as refusal:
            refusals.append(refusal)
            continue
        spacing = None if plane.spacing is None else (1.0, *plane.spacing)
        plans.append(_Plan((plane,), None, spacing))
    stacks, unstacked = find_stacks(planes)
    plans += [_Plan(stack.planes, stack.affine_lps, stack.spacing_mm) for stack in stacks]
    plans.sort(key=lambda plan: -math.prod(plan.shape))
    return plans, refusals + unstacked


def _fill_all(
    plans: Sequence[_Plan],
    voxels: Sequence[NDArray[np.float32]],
    instances: Mapping[str, _Instance],
    preread: Preread | None,
) -> dict[str, NotEvaluableError]:
    """Decode every instance once into the volumes that hold its frames; return what failed by SOP Instance UID."""
    targets: defaultdict[str, dict[int, Target]] = defaultdict(dict)
    for plan, array in zip(plans, voxels, strict=True):
        for k, plane in enumerate(plan.planes):
            targets[plane.frame.sop_instance_uid][plane.index] = Target(array[k], plane.slope, plane.intercept)
    failed: dict[str, NotEvaluableError] = {}
    with SeparateDecoder() as apart:
        for sop_instance_uid, frames in targets.items():
            instance = instances[sop_instance_uid]
            if preread is not None and preread.fill(instance.path, instance.coding, frames):
                continue
            try:
                fill(read_instance(instance.path), instance.path, instance.coding, frames, apart)
            except NotEvaluableError as refusal:
                failed[sop_instance_uid] = refusal
    return failed


def _volume(plan: _Plan, voxels: NDArray[np.float32], instances: Mapping[str, _Instance]) -> Volume:
    header = instances[plan.planes[0].frame.sop_instance_uid].header
    found = {keyword: text(header, keyword) for keyword in ATTRIBUTES}
    return Volume(
        voxels=voxels,
        affine_lps=plan.affine_lps,
        spacing_mm=plan.spacing_mm,
        frames=tuple(plane.frame for plane in plan.planes),
        series_instance_uid=text(header, "SeriesInstanceUID"),
        modality=text(header, "Modality"),
        attributes={keyword: value for keyword, value in found.items() if value},
    )


def _main_reason(refusals: Sequence[NotEvaluableError]) -> NotEvaluableError:
    """Return the refusal whose code is the most frequent one, the first of equals."""
    if not refusals:
        return NotEvaluableError("series.empty", "The series holds no instances.")
    counts = Counter(refusal.code for refusal in refusals)
    return max(refusals, key=lambda refusal: counts[refusal.code])
