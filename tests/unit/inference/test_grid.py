"""Volumes onto the patient's grid and back: nothing moves, however the scanner stored them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.grid import extent_mm, from_grid, grid_around, spacing_along_axes_mm, to_grid

_CENTER_LPS = np.array([12.0, -30.0, 45.0])
_RADII_MM = np.array([16.0, 22.0, 28.0])


def _rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    one, other = (axis + 1) % 3, (axis + 2) % 3
    matrix[one, one] = matrix[other, other] = np.cos(angle)
    matrix[one, other], matrix[other, one] = -np.sin(angle), np.sin(angle)
    return matrix


_SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_SHEAR = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.35], [0.0, 0.0, 1.0]])
_DIRECTIONS = {
    "axial": np.eye(3),
    "flipped-y-and-z": np.diag([1.0, -1.0, -1.0]),
    "sagittal": _SAGITTAL,
    "oblique": _rotation(0, 18) @ _rotation(1, -11) @ _rotation(2, 7),
    "gantry-tilt": _SHEAR,
}


def _volume(directions: NDArray[np.float64], spacing_xyz: tuple[float, ...], shape: tuple[int, int, int]) -> NDArray:
    """Return the affine of a volume whose middle lies at `_CENTER_LPS`."""
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag(spacing_xyz)
    middle = (np.array(shape[::-1]) - 1) / 2
    affine[:3, 3] = _CENTER_LPS - affine[:3, :3] @ middle
    return affine


def _places(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    z, y, x = np.meshgrid(*(np.arange(count) for count in shape), indexing="ij")
    return np.stack([x, y, z, np.ones_like(x)], axis=-1) @ affine.T[:, :3]  # (Z, Y, X, 3) mm LPS


def _depth(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return how deep within an ellipsoid around a spot beside the middle each voxel lies: above 0 inside."""
    away = (_places(affine, shape) - _CENTER_LPS - [3.0, -5.0, 4.0]) / _RADII_MM
    return (1 - np.linalg.norm(away, axis=-1)).astype(np.float32)


def _center_lps(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return _places(affine, mask.shape)[mask].mean(axis=0)


@pytest.mark.parametrize("directions", _DIRECTIONS.values(), ids=_DIRECTIONS)
@pytest.mark.parametrize("spacing_xyz", [(0.8, 0.8, 5.0), (1.0, 1.0, 1.0), (0.7, 1.3, 2.0)])
def test_what_is_found_on_the_grid_lies_in_the_same_place_on_the_source(
    directions: NDArray[np.float64], spacing_xyz: tuple[float, ...]
) -> None:
    """An ellipsoid's mask, to the grid and back, keeps centre and volume: within half a voxel, and 3 per cent."""
    shape = tuple(int(96 / step) for step in reversed(spacing_xyz))
    affine = _volume(directions, spacing_xyz, shape)
    truth = _depth(affine, shape) > 0

    grid = grid_around(affine, shape, (2.5, 2.0, 2.0))
    on_grid = to_grid(_depth(affine, shape), affine, grid, -1.0)
    back = from_grid(on_grid[None], grid, affine, tuple(slice(0, count) for count in shape))[0].numpy() > 0

    half_voxel = np.array(spacing_xyz).min() / 2
    assert np.linalg.norm(_center_lps(back, affine) - _center_lps(truth, affine)) < half_voxel
    assert np.linalg.norm(_center_lps(on_grid.numpy() > 0, grid.affine_lps) - _center_lps(truth, affine)) < 1.0
    assert back.sum() == pytest.approx(truth.sum(), rel=0.03)


def test_the_grid_leads_to_left_back_and_head() -> None:
    """A mark at the patient's left, back and head end lies at high x, y and z of the grid, though all is flipped."""
    shape = (12, 16, 20)
    affine = _volume(np.diag([-1.0, -1.0, -1.0]), (2.0, 2.0, 2.0), shape)
    voxels = np.zeros(shape, dtype=np.float32)
    voxels[1, 2, 3] = 100.0  # low indices: left, back and head

    on_grid = to_grid(voxels, affine, grid_around(affine, shape, (2.0, 2.0, 2.0)), 0.0)

    assert np.argwhere(on_grid.numpy() == 100).tolist() == [[10, 13, 16]]


def test_reading_along_the_axes_equals_reading_point_by_point() -> None:
    """A turn too small to see takes the general way, and gives the same numbers."""
    shape = (10, 24, 20)
    aligned = _volume(_SAGITTAL, (1.1, 0.9, 3.0), shape)
    turned = _volume(_SAGITTAL @ _rotation(0, 0.02), (1.1, 0.9, 3.0), shape)
    voxels = _depth(aligned, shape)
    grid = grid_around(aligned, shape, (2.0, 2.0, 2.0))

    fast, slow = (to_grid(voxels, affine, grid, -1.0) for affine in (aligned, turned))

    inside = (slice(1, -1),) * 3
    assert torch.allclose(fast[inside], slow[inside], atol=0.01)


def test_outside_an_oblique_volume_the_fill_value_stands() -> None:
    """The corners of the grid around a turned volume hold no voxel of it."""
    shape = (20, 20, 20)
    affine = _volume(_rotation(2, 45), (2.0, 2.0, 2.0), shape)

    on_grid = to_grid(np.ones(shape, dtype=np.float32), affine, grid_around(affine, shape, (2.0, 2.0, 2.0)), -7.0)

    assert on_grid[10, 0, 0] == -7
    assert on_grid[10, on_grid.shape[1] // 2, on_grid.shape[2] // 2] == 1


def test_extent_and_spacing_follow_the_patient_not_the_scanner() -> None:
    """Of a sagittal stack, the distance of planes is that from side to side."""
    affine = _volume(_SAGITTAL, (1.0, 1.5, 4.0), (10, 40, 30))

    assert spacing_along_axes_mm(affine) == pytest.approx((1.5, 1.0, 4.0))
    assert extent_mm(affine, (10, 40, 30)) == pytest.approx((60.0, 30.0, 40.0))
