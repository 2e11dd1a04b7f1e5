"""Volumes onto a grid along the patient's axes, and back by the exact inverse.

Networks see every volume alike: index x towards the patient's left, y towards the back, z towards the head (LPS), at
one spacing, however the scanner stored it: flipped, sagittal, oblique, tilted. `to_grid` reads the source at the place
in the patient of each voxel of the grid; `from_grid` reads scores on the grid at the place of each source voxel, so
that nothing moves: both go through the same affines, and no rounding lies between them. Scores are brought back, not
masks, so that a boundary lies between the voxels of a coarse grid as exactly as the scores tell.

Reduction is low-passed: where the grid is coarser than the source, whole blocks of source voxels are averaged first.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.input_spec import Triple

_ROUNDING = 1e-6
_HALF_VOXEL = 0.5
_ALIGNED_VOXELS = 1e-3


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid along the patient's axes."""

    shape: tuple[int, int, int]
    """(Z, Y, X) voxels."""
    spacing_mm: Triple
    """(z, y, x)."""
    origin_lps: Triple
    """Centre of voxel (0, 0, 0): x, y, z in mm LPS."""

    @property
    def affine_lps(self) -> NDArray[np.float64]:
        """(4, 4): voxel index (x, y, z, 1) to mm LPS."""
        affine = np.diag([*reversed(self.spacing_mm), 1.0])
        affine[:3, 3] = self.origin_lps
        return affine


def grid_around(affine_lps: NDArray[np.float64], shape: tuple[int, ...], spacing_mm: Triple) -> Grid:
    """Return the smallest grid that holds the centres of all voxels of a volume.

    Parameters
    ----------
    affine_lps
        (4, 4): voxel index (x, y, z, 1) to mm LPS.
    shape
        (Z, Y, X) of the volume.
    """
    low, high = bounds_lps(affine_lps, shape)
    steps = np.array(spacing_mm[::-1])
    counts = np.ceil((high - low) / steps - _ROUNDING).astype(int) + 1  # (x, y, z)
    # What the rounding up adds is spread over both ends.
    origin = (low + high - (counts - 1) * steps) / 2
    nx, ny, nz = (int(count) for count in counts)
    return Grid((nz, ny, nx), spacing_mm, (float(origin[0]), float(origin[1]), float(origin[2])))


def bounds_lps(
    affine_lps: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the greatest x, y, z in mm LPS of the centres of a volume's voxels."""
    ends = [(0, count - 1) for count in reversed(shape)]  # x, y, z
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)], dtype=np.float64)  # (8, 4)
    places = (corners @ affine_lps.T)[:, :3]
    return places.min(axis=0), places.max(axis=0)


def extent_mm(affine_lps: NDArray[np.float64], shape: tuple[int, ...]) -> Triple:
    """Return how far a volume reaches in the patient, its outer voxels whole: (z, y, x) in mm."""
    low, high = bounds_lps(affine_lps, shape)
    reach = high - low + np.abs(affine_lps[:3, :3]).max(axis=1)
    return float(reach[2]), float(reach[1]), float(reach[0])


def spacing_along_axes_mm(affine_lps: NDArray[np.float64]) -> Triple:
    """Return the source's spacing by the patient's axis that lies nearest to each of its own: (z, y, x) in mm."""
    lengths = np.linalg.norm(affine_lps[:3, :3], axis=0)  # along the source's x, y, z
    shares = np.abs(affine_lps[:3, :3] / lengths)  # (patient axis, source axis)
    orders = itertools.permutations(range(3))
    nearest = max(orders, key=lambda order: sum(shares[axis, source] for axis, source in enumerate(order)))
    x, y, z = (float(lengths[source]) for source in nearest)
    return z, y, x


def to_grid(voxels: NDArray[np.float32], affine_lps: NDArray[np.float64], grid: Grid, fill: float) -> Tensor:
    """Read a volume at the places of the grid's voxels.

    Parameters
    ----------
    voxels
        (Z, Y, X).
    affine_lps
        Of the volume.
    fill
        Value of what lies outside the volume, in grids around oblique ones.

    Returns
    -------
    (Z, Y, X) float32 on the grid.
    """
    source = torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32))[None, None]  # (1, 1, Z, Y, X)
    factors = _block(affine_lps, grid.spacing_mm)  # (z, y, x)
    if max(factors) > 1:
        source = functional.avg_pool3d(source, factors, ceil_mode=True, count_include_pad=False)
        affine_lps = affine_lps @ _pooled(factors)
    to_source = np.linalg.inv(affine_lps) @ grid.affine_lps
    if _is_aligned(to_source, grid.shape):
        return _read_aligned(source[0], to_source, grid.shape)[0]
    read = torch.empty(grid.shape, dtype=torch.float32)
    for z in range(grid.shape[0]):
        places = _indices(to_source, (1, *grid.shape[1:]), z)  # (1, Y, X, 3)
        plane = _sample(source, _normalised(places, source.shape[2:]))[0, 0]
        read[z] = plane.masked_fill(_is_outside(places, source.shape[2:])[0], fill)
    return read


def from_grid(
    scores: Tensor,
    grid: Grid,
    affine_lps: NDArray[np.float64],
    box: tuple[slice, slice, slice],
) -> Tensor:
    """Read scores on the grid at the places of a source's voxels.

    Parameters
    ----------
    scores
        (C, Z, Y, X) on the grid.
    affine_lps
        Of the source.
    box
        Which source voxels: slices of z, y and x with start and stop.

    Returns
    -------
    (C, *box); beyond the grid its border goes on.
    """
    start = np.eye(4)
    start[:3, 3] = [box[2].start, box[1].start, box[0].start]
    to_scores = np.linalg.inv(grid.affine_lps) @ affine_lps @ start
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
    if _is_aligned(to_scores, shape):
        return _read_aligned(scores, to_scores, shape)
    places = _normalised(_indices(to_scores, shape, 0), scores.shape[1:]).to(scores.device)
    return _sample(scores[None], places)


def _sample(source: Tensor, places: Tensor) -> Tensor:
    """Read (1, C, Z, Y, X) linearly at (z, y, x, 3) normalised places; the border goes on."""
    return functional.grid_sample(source, places[None], mode="bilinear", padding_mode="border", align_corners=False)[
        0
    ]  # (C, z, y, x)


def _is_aligned(affine: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Say whether each axis leads along one axis alone: how far the others drift over a box is under 1/1000 voxel."""
    drift = np.abs(affine[:3, :3]) * np.array(shape[::-1])
    leading = np.abs(affine[:3, :3]).argmax(axis=1)
    drift[np.arange(3), leading] = 0
    return sorted(leading.tolist()) == [0, 1, 2] and bool(drift.max() < _ALIGNED_VOXELS)


def _read_aligned(values: Tensor, affine: NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
    """Read (C, Z, Y, X) values linearly where an affine leads the voxels of a box, one axis after the other.

    The same as `_sample`, and many times as fast, since each axis leads along one axis alone.
    """
    leading = np.abs(affine[:3, :3]).argmax(axis=1)  # of each axis read from (x, y, z): the box's axis
    by_growth = sorted(range(3), key=lambda axis: shape[2 - leading[axis]] / values.shape[3 - axis])
    for axis in by_growth:
        steps = torch.arange(shape[2 - int(leading[axis])], dtype=torch.float64)
        places = steps * float(affine[axis, leading[axis]]) + float(affine[axis, 3])
        values = _read_axis(values, 3 - axis, places)
    order = [3 - int(np.flatnonzero(leading == 2 - side)[0]) for side in range(3)]
    return values.permute(0, *order).contiguous()  # (C, *shape)


def _read_axis(values: Tensor, dimension: int, places: Tensor) -> Tensor:
    last = values.shape[dimension] - 1
    places = places.clamp(0, last)
    low = places.floor().long()
    share = (places - low).float().view(-1, *[1] * (values.ndim - 1 - dimension)).to(values.device)
    first = values.index_select(dimension, low.to(values.device))
    second = values.index_select(dimension, (low + 1).clamp(max=last).to(values.device))
    return torch.lerp(first, second, share)


def _block(affine_lps: NDArray[np.float64], spacing_mm: Triple) -> tuple[int, int, int]:
    """Return how many source voxels along its z, y, x go into one step of the grid."""
    columns = affine_lps[:3, :3]
    factors = []
    for axis in (2, 1, 0):
        length = float(np.linalg.norm(columns[:, axis]))
        nearest = int(np.abs(columns[:, axis]).argmax())  # patient's x, y or z
        factors.append(max(1, int(spacing_mm[2 - nearest] / length + _ROUNDING)))
    return factors[0], factors[1], factors[2]


def _pooled(factors: tuple[int, int, int]) -> NDArray[np.float64]:
    """(4, 4): index (x, y, z, 1) of a block to that of its centre among the source's voxels."""
    sides = np.array(factors[::-1], dtype=np.float64)
    blocks = np.diag([*sides, 1.0])
    blocks[:3, 3] = (sides - 1) / 2
    return blocks


def _indices(affine: NDArray[np.float64], shape: tuple[int, ...], first_z: int) -> Tensor:
    """Return (Z, Y, X, 3): where, as index (x, y, z), an affine leads the voxels of a box that starts at `first_z`."""
    z, y, x = (torch.arange(count, dtype=torch.float64) for count in shape)
    matrix = torch.from_numpy(affine)
    along_z = (z + first_z)[:, None, None, None] * matrix[:3, 2]
    along_y = y[None, :, None, None] * matrix[:3, 1]
    along_x = x[None, None, :, None] * matrix[:3, 0]
    return along_z + (along_y + (along_x + matrix[:3, 3]))  # (Z, Y, X, 3)


def _normalised(places: Tensor, shape: torch.Size) -> Tensor:
    """Turn indices (x, y, z) into the coordinates of grid_sample: -1 at the first edge, 1 at the last; float32."""
    counts = torch.tensor([shape[2], shape[1], shape[0]], dtype=torch.float64)
    return ((2 * places + 1) / counts - 1).float()


def _is_outside(places: Tensor, shape: torch.Size) -> Tensor:
    """Say of each place (Z, Y, X, 3) whether it lies more than half a voxel beyond the volume."""
    last = torch.tensor([shape[2] - 1, shape[1] - 1, shape[0] - 1], dtype=torch.float64)
    return ((places < -_HALF_VOXEL - _ROUNDING) | (places > last + _HALF_VOXEL + _ROUNDING)).any(dim=-1)
