"""Right and left lung of a chest CT from its Hounsfield units alone: what `ct-lung` learns from and is judged by.

A classical reference after Hu, Hoffman and Reinhardt, "Automatic lung segmentation for accurate quantitation of
volumetric X-ray CT images", IEEE TMI 2001. It is no radiologist's outline. Its rules, in their order, each on the
source's own axial planes; lengths are in millimetres, so they hold for every scanner:

1.  Values are smoothed by a median over 3 x 3 pixels, or noise of sharp kernels would eat at the lungs.
2.  Body: above -500 HU, opened by 4 mm to drop table and clothes, the largest part in space, each plane filled.
3.  Air: below -320 HU within the body. Outside air is gone by rule 2.
4.  Airway: from the top plane that shows it, the air below -800 HU of 40 to 800 mm2 nearest to the middle of the body;
    followed downwards plane by plane through what overlaps it and stays below 800 mm2, so that it ends where the
    bronchi enter the lungs. Widened by 1.5 mm for its wall, it is taken away from the air.
5.  Lungs: the two largest parts of what is left, in space. Where the second is below a tenth of the first, the two
    touch: planes are eroded, 1 mm at a time up to 12 mm, until they part; every voxel goes to the nearer part.
6.  Sides: the lung whose centre lies further to the patient's right, by the affine, is the right one. Nothing is
    assumed about how the scanner stores its rows.
7.  Vessels and nodules at the edge: each lung is closed by 6 mm in its planes, then holes of its planes are filled. A
    voxel that both would take goes to neither, and no airway is taken back.

What this leaves out: consolidated lung and effusions that reach the chest wall (they are not air), and the lobar
bronchi, which count as lung from rule 4 on.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask: TypeAlias = NDArray[np.bool_]
Labels: TypeAlias = NDArray[np.signedinteger[Any]]

RIGHT, LEFT = 1, 2
_BODY_HU, _AIR_HU, _AIRWAY_HU = -500.0, -320.0, -800.0
_OPENING_MM = 4.0
_AIRWAY_MM2 = (40.0, 800.0)
_CENTRAL_MM = 60.0
"""The trachea lies at most this far from the middle of the body."""
_WALL_MM = 1.5
_TOUCHING_SHARE = 0.1
_EROSION_STEP_MM, _EROSION_LIMIT_MM = 1.0, 12.0
_CLOSING_MM = 6.0
_LEAST_ML = 50.0
_MM3_PER_ML = 1000.0
_AXIAL_COSINE = 0.9
_PAIR = 2


def reference_lungs(voxels: NDArray[np.float32], affine_lps: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (Z, Y, X) numbers: 0 other, 1 right lung, 2 left lung.

    Parameters
    ----------
    voxels
        (Z, Y, X) HU, axial planes.
    affine_lps
        (4, 4): voxel index (x, y, z, 1) to mm LPS.

    Raises
    ------
    ValueError
        The planes are not axial, or no pair of lungs is found.
    """
    columns = affine_lps[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)  # along the source's x, y, z
    if abs(columns[2, 2]) < _AXIAL_COSINE * spacing[2]:
        raise ValueError("the reference needs axial planes")
    pixel_mm = (float(spacing[1]), float(spacing[0]))  # y, x
    if columns[2, 2] < 0:  # planes from head to foot: rule 4 goes down
        upward = reference_lungs(voxels[::-1], affine_lps @ _reversed_planes(len(voxels)))
        return np.ascontiguousarray(upward[::-1])
    smooth = ndimage.median_filter(voxels, size=(1, 3, 3), mode="nearest")
    body = _body(smooth, pixel_mm)
    air = (smooth < _AIR_HU) & body
    airway = _airway((smooth < _AIRWAY_HU) & body, body, pixel_mm)
    air &= ~airway
    pair = _two_lungs(air, pixel_mm, abs(float(np.linalg.det(columns))))
    right, left = sorted(pair, key=lambda lung: _center_x_lps(lung, affine_lps))
    return _closed(right, left, airway, pixel_mm)


def _reversed_planes(count: int) -> NDArray[np.float64]:
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = count - 1
    return flip


def _body(smooth: NDArray[np.float32], pixel_mm: tuple[float, float]) -> Mask:
    """Rule 2."""
    dense = np.stack(
        [_dilated(_eroded(plane, _OPENING_MM, pixel_mm), _OPENING_MM, pixel_mm) for plane in smooth > _BODY_HU]
    )
    largest = _parts(dense)[0]
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])


def _airway(dark: Mask, body: Mask, pixel_mm: tuple[float, float]) -> Mask:
    """Rule 4; `dark` is the air below -800 HU within the body, planes from foot to head."""
    airway = np.zeros_like(dark)
    area_mm2 = pixel_mm[0] * pixel_mm[1]
    above: Mask | None = None
    for z in reversed(range(len(dark))):
        parts, count = ndimage.label(dark[z])
        areas = np.bincount(parts.ravel(), minlength=count + 1) * area_mm2
        fitting = [part for part in range(1, count + 1) if areas[part] <= _AIRWAY_MM2[1]]
        if above is None:
            chosen = _nearest_to_middle(
                [part for part in fitting if areas[part] >= _AIRWAY_MM2[0]], parts, body[z], pixel_mm
            )
        else:
            chosen = [part for part in fitting if (above & (parts == part)).any()]
        if not chosen:
            if above is not None:
                break
            continue
        above = np.isin(parts, chosen)
        airway[z] = _dilated(above, _WALL_MM, pixel_mm)
    return airway


def _nearest_to_middle(parts: list[int], labels: Labels, body: Mask, pixel_mm: tuple[float, float]) -> list[int]:
    if not parts or not body.any():
        return []
    middle = np.array(ndimage.center_of_mass(body))
    centers = np.array(ndimage.center_of_mass(labels > 0, labels, parts))
    distances = np.linalg.norm((centers - middle) * pixel_mm, axis=1)
    nearest = int(distances.argmin())
    return [parts[nearest]] if distances[nearest] <= _CENTRAL_MM else []


def _two_lungs(air: Mask, pixel_mm: tuple[float, float], voxel_mm3: float) -> tuple[Mask, Mask]:
    """Rule 5."""
    parts = _parts(air)
    if parts[0].sum() * voxel_mm3 < _LEAST_ML * _MM3_PER_ML:
        raise ValueError("no lungs were found")
    if len(parts) >= _PAIR and parts[1].sum() >= _TOUCHING_SHARE * parts[0].sum():
        return parts[0], parts[1]
    both = parts[0]
    for depth_mm in np.arange(_EROSION_STEP_MM, _EROSION_LIMIT_MM + 1e-6, _EROSION_STEP_MM):
        cores = _parts(np.stack([_eroded(plane, float(depth_mm), pixel_mm) for plane in both]))
        if len(cores) >= _PAIR and cores[1].sum() >= _TOUCHING_SHARE * max(1, cores[0].sum()):
            first, second = cores[0], cores[1]
            is_first = _distance(first, pixel_mm) < _distance(second, pixel_mm)
            return both & is_first, both & ~is_first
    raise ValueError("no pair of lungs was found")


def _distance(core: Mask, pixel_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Return how far each voxel is from a core, mm; planes count as one pixel apart, so that the plane decides."""
    step = max(pixel_mm)
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~core, sampling=(4 * step, *pixel_mm))
    return distance


def _parts(mask: Mask) -> list[Mask]:
    """Return the two largest connected parts in space, the larger first."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    if not sizes.size:
        return [mask]
    order = np.argsort(-sizes, kind="stable")[:_PAIR] + 1
    return [labels == label for label in order]


def _center_x_lps(lung: Mask, affine_lps: NDArray[np.float64]) -> float:
    z, y, x = ndimage.center_of_mass(lung)
    return float((affine_lps @ [x, y, z, 1])[0])


def _closed(right: Mask, left: Mask, airway: Mask, pixel_mm: tuple[float, float]) -> NDArray[np.uint8]:
    """Rule 7."""
    closed = [np.stack([_closed_plane(plane, pixel_mm) for plane in lung]) for lung in (right, left)]
    numbers = np.zeros(right.shape, dtype=np.uint8)
    numbers[(closed[0] & ~closed[1] & ~airway) | right] = RIGHT
    numbers[(closed[1] & ~closed[0] & ~airway) | left] = LEFT
    return numbers


def _closed_plane(plane: Mask, pixel_mm: tuple[float, float]) -> Mask:
    if not plane.any():
        return plane
    padded = np.pad(plane, int(np.ceil(_CLOSING_MM / min(pixel_mm))) + 1)
    closed = _eroded(_dilated(padded, _CLOSING_MM, pixel_mm), _CLOSING_MM, pixel_mm)
    margin = (padded.shape[0] - plane.shape[0]) // 2
    filled: Mask = ndimage.binary_fill_holes(closed)[margin:-margin, margin:-margin]
    return filled


def _dilated(plane: Mask, radius_mm: float, pixel_mm: tuple[float, float]) -> Mask:
    """Widen a plane (Y, X) by a disk."""
    if not plane.any():
        return plane
    wide: Mask = ndimage.distance_transform_edt(~plane, sampling=pixel_mm) <= radius_mm
    return wide


def _eroded(plane: Mask, radius_mm: float, pixel_mm: tuple[float, float]) -> Mask:
    """Narrow a plane (Y, X) by a disk; beyond its border it counts as going on."""
    if plane.all():
        return plane
    narrow: Mask = ndimage.distance_transform_edt(plane, sampling=pixel_mm) > radius_mm
    return narrow
