"""A made-up chest in Hounsfield units: a body with two lungs, vessels in them, and a windpipe, on a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RIGHT, LEFT = 1, 2
_SPACING_MM = (6.0, 2.0, 2.0)


def chest_affine(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return the affine of axial planes from foot to head, rows to the left, columns to the back, middle at 0."""
    affine = np.diag([*reversed(_SPACING_MM), 1.0])
    affine[:3, 3] = [
        -(count - 1) / 2 * step for count, step in zip(reversed(shape), reversed(_SPACING_MM), strict=True)
    ]
    return affine


def chest(
    shape: tuple[int, int, int] = (26, 130, 170), gap_mm: float = 24.0
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    """Make voxels, true lungs, and affine; (Z, Y, X).

    Parameters
    ----------
    gap_mm
        Between the lungs in the middle; below 2 their outermost voxels touch, as in emphysema.
    """
    affine = chest_affine(shape)
    z, y, x = ((np.arange(count) - (count - 1) / 2) * step for count, step in zip(shape, _SPACING_MM, strict=True))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    voxels = np.full(shape, -1000.0, dtype=np.float32)
    voxels[np.broadcast_to((x / 155) ** 2 + (y / 105) ** 2 < 1, shape)] = 40
    voxels[np.broadcast_to((y > 118) & (y < 124) & (np.abs(x) < 140) & (z < 1e9), shape)] = 100  # the table
    labels = np.zeros(shape, dtype=np.uint8)
    half = 52.0
    for number, side in ((RIGHT, -1), (LEFT, 1)):  # the patient's right lies at low x in LPS
        inside = ((x - side * (half + gap_mm / 2)) / half) ** 2 + (y / 75) ** 2 + (z / 66) ** 2 < 1
        labels[np.broadcast_to(inside, shape)] = number
    voxels[labels > 0] = -850
    vessels = np.broadcast_to(((np.abs(x) % 30) < 3) & ((y % 30) < 3), shape) & (labels > 0)
    voxels[vessels] = 30
    windpipe = np.broadcast_to(((x / 8) ** 2 + ((y + 5) / 8) ** 2 < 1) & (z > 0), shape)
    voxels[windpipe & (labels == 0)] = -980
    noise = np.random.default_rng(0).normal(0, 15, shape).astype(np.float32)
    return voxels + noise, labels, affine
