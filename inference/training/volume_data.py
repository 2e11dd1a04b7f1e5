"""Labelled volumes: NIfTI images with masks, or CT series whose labels are derived from their own values.

`masks`: `images/` and `labels/` hold files of one name; an image without a mask is left out. NIfTI places voxels in
RAS millimetres, ours are LPS: the affine's first two rows change sign, and nothing else does.

`lung-reference`: every chest CT series in DICOM below the folder, labelled by `lung_reference`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.errors import BundleError, NotEvaluableError
from inference.grid import to_grid
from inference.input_spec import VolumeInput
from inference.instance import read_header, text
from inference.training.lung_reference import reference_lungs
from inference.training.volume_augmentation import WHOLE, LabelledGrid
from inference.volume import MAX_VOLUME_BYTES, load_series
from inference.volume_labels import onto_grid

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AXES = 3


@dataclass(frozen=True, slots=True, eq=False)
class VolumeCase:
    """One labelled volume on the grid of its source."""

    name: str
    group: str
    """Cases of one group are trained on together or not at all."""
    voxels: NDArray[np.float32]
    """(Z, Y, X) modality values."""
    labels: NDArray[np.uint8]
    """(Z, Y, X) segment numbers."""
    affine_lps: NDArray[np.float64]


def load_cases(data_dir: Path, bundle: Bundle, labels: str, report: Callable[[int, int], None]) -> list[VolumeCase]:
    """Load all cases below `data_dir`, by name.

    Raises
    ------
    BundleError
        There are none, or a mask does not fit its image or the bundle's segments.
    """
    load = _load_masked if labels == "masks" else _load_ct
    cases = load(data_dir, len(bundle.segments), report)
    if not cases:
        raise BundleError(f"{data_dir}: no labelled volume for {bundle.name}")
    return cases


def labelled_grid(case: VolumeCase, spec: VolumeInput, segments: int) -> LabelledGrid:
    """Bring a case onto the bundle's grid; a voxel there holds the share of each label in its place.

    Shares tell a network where within a coarse voxel the boundary lies, and its scores tell `from_grid`.
    """
    volume = onto_grid(case.voxels, case.affine_lps, spec)
    shares = [
        to_grid((case.labels == number).astype(np.float32), case.affine_lps, volume.grid, 0.0)
        for number in range(1, segments + 1)
    ]
    return LabelledGrid(volume.voxels, (torch.stack(shares) * WHOLE).round().to(torch.uint8))


def folds_of(cases: Sequence[VolumeCase], folds: int, seed: int) -> list[list[int]]:
    """Return the indices of the cases that each fold holds out.

    Groups go to folds by a hash of their name, evenly, so the answer depends on neither order nor machine; with 0
    folds each group is one.
    """
    groups = sorted({case.group for case in cases}, key=lambda group: (_hash(group, seed), group))
    count = folds or len(groups)
    if len(groups) < max(count, 2):
        raise BundleError(f"{len(groups)} groups of cases do not make {max(count, 2)} folds")
    fold = {group: position % count for position, group in enumerate(groups)}
    return [[index for index, case in enumerate(cases) if fold[case.group] == number] for number in range(count)]


def _hash(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def _load_masked(data_dir: Path, segments: int, report: Callable[[int, int], None]) -> list[VolumeCase]:
    names = sorted(
        file.name for file in (data_dir / "images").glob("*.nii*") if (data_dir / "labels" / file.name).exists()
    )
    cases = []
    for done, name in enumerate(names, start=1):
        cases.append(_masked(data_dir, name, segments))
        report(done, len(names))
    return cases


def _masked(data_dir: Path, name: str, segments: int) -> VolumeCase:
    voxels, affine_lps = read_nifti(data_dir / "images" / name)
    mask, mask_affine = read_nifti(data_dir / "labels" / name)
    if mask.shape != voxels.shape or not np.allclose(mask_affine, affine_lps, atol=1e-3):
        raise BundleError(f"{data_dir / 'labels' / name}: lies on another grid than its image")
    labels = mask.astype(np.uint8)
    if not np.array_equal(labels, mask) or labels.max() > segments:
        raise BundleError(f"{data_dir / 'labels' / name}: must hold whole numbers up to {segments}")
    return VolumeCase(name.split(".", maxsplit=1)[0], name.split(".", maxsplit=1)[0], voxels, labels, affine_lps)


def read_nifti(file: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the (Z, Y, X) voxels of a NIfTI volume and their affine to LPS."""
    try:
        image = cast(nib.Nifti1Image, nib.load(file))
        values = np.asarray(image.dataobj, dtype=np.float32)  # (X, Y, Z)
    except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise BundleError(f"{file}: cannot be read: {type(error).__name__}") from error
    if values.ndim != _AXES:
        raise BundleError(f"{file}: has {values.ndim} axes, expected {_AXES}")
    return np.ascontiguousarray(values.T), _RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)


def _load_ct(data_dir: Path, segments: int, report: Callable[[int, int], None]) -> list[VolumeCase]:
    """Load the chest CT series below a folder; a case's group is its manufacturer."""
    by_series: defaultdict[str, list[Path]] = defaultdict(list)
    for file in sorted(path for path in data_dir.rglob("*") if path.is_file()):
        try:
            header = read_header(file, MAX_VOLUME_BYTES)
        except NotEvaluableError:
            continue
        if text(header, "Modality") == "CT":
            by_series[text(header, "SeriesInstanceUID")].append(file)
    cases = []
    for done, (uid, files) in enumerate(sorted(by_series.items()), start=1):
        for volume in load_series(files).volumes:
            if volume.affine_lps is None:
                continue
            labels = reference_lungs(volume.voxels, volume.affine_lps)
            maker = volume.attributes.get("Manufacturer", "unknown").upper()
            name = f"{maker.lower()}-{uid[-6:]}"
            cases.append(VolumeCase(name, maker, volume.voxels, labels, volume.affine_lps))
        report(done, len(by_series))
    return cases
