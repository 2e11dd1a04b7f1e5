"""Planes to network input and back, each step with its inverse.

A plane is cut in two steps: `normalised` brings any (Y, X) plane onto the bundle's square detail grid with grey
values in 0..1, and `sample` cuts a `Region` of it into the network's square input. Regions are given in normalised
coordinates of the plane, -1 at its first edge and 1 at its last (pixel i of n has its centre at (2 i + 1) / n - 1),
so they mean the same on the source grid and on the detail grid. `restore` brings a result on a region back to the
source grid: every source pixel is looked up at its own centre; pixels outside the region get the fill value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a plane, in normalised coordinates."""

    center_x: float
    center_y: float
    half_width: float
    """1 is half the plane's width."""
    half_height: float
    """1 is half the plane's height."""

    def theta(self) -> NDArray[np.float32]:
        """(2, 3) affine from the region's normalised coordinates (x, y, 1) to the plane's."""
        rows = [[self.half_width, 0.0, self.center_x], [0.0, self.half_height, self.center_y]]
        return np.array(rows, dtype=np.float32)

    def inverse_theta(self) -> NDArray[np.float32]:
        """(2, 3) affine from the plane's normalised coordinates to the region's."""
        rows = [
            [1 / self.half_width, 0.0, -self.center_x / self.half_width],
            [0.0, 1 / self.half_height, -self.center_y / self.half_height],
        ]
        return np.array(rows, dtype=np.float32)


def square_region(center_x: float, center_y: float, half_side: float, aspect: float) -> Region:
    """Return the physically square region with `half_side` in units of half the plane's height.

    Parameters
    ----------
    aspect
        Physical width of the whole plane over its physical height.
    """
    return Region(center_x, center_y, half_side / aspect, half_side)


def letter_box(aspect: float) -> Region:
    """Return the smallest physically square region around the whole plane."""
    return square_region(0.0, 0.0, max(1.0, aspect), aspect)


def around(mask: NDArray[np.bool_], aspect: float, margin: float) -> Region:
    """Return the physically square region around the set pixels of a whole plane's (Y, X) mask.

    Parameters
    ----------
    margin
        Side of the region over the longer side of the bounding box.

    Raises
    ------
    ValueError
        The mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty")
    left, right, top, bottom = _bounds(mask)
    half_side = margin * max((right - left) * aspect, bottom - top) / 2
    return square_region((left + right) / 2, (top + bottom) / 2, half_side, aspect)


def stretched(mask: NDArray[np.bool_], margin: float) -> Region:
    """Return the bounding box of a mask's (Y, X) set pixels, each side longer by `margin`; the whole plane without any.

    As the network's square input it shows nothing of the aspect ratio.
    """
    if not mask.any():
        return Region(0.0, 0.0, 1.0, 1.0)
    left, right, top, bottom = _bounds(mask)
    return Region((left + right) / 2, (top + bottom) / 2, margin * (right - left) / 2, margin * (bottom - top) / 2)


def _bounds(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of the set pixels, at their edges, in normalised coordinates."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        float(2 * columns[0] / width - 1),
        float(2 * (columns[-1] + 1) / width - 1),
        float(2 * rows[0] / height - 1),
        float(2 * (rows[-1] + 1) / height - 1),
    )


def normalised(plane: NDArray[np.float32], detail: int, percentiles: tuple[float, float]) -> NDArray[np.float32]:
    """Return `plane` (Y, X) on the (detail, detail) grid, its percentiles at 0 and 1, clipped.

    The grid is square whatever the plane's shape; `Region` undoes the squash. Reduction is low-passed.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None]  # (1, 1, Y, X)
    if plane.shape != (detail, detail):
        size = (detail, detail)
        tensor = functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False, antialias=True)
    squared = tensor[0, 0].numpy()  # (detail, detail)
    low, high = np.percentile(squared, percentiles)
    scaled: NDArray[np.float32] = np.clip((squared - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    return scaled


def sample(planes: Tensor, thetas: Tensor, size: int) -> Tensor:
    """Cut one region out of each plane.

    Parameters
    ----------
    planes
        (B, C, Y, X).
    thetas
        (B, 2, 3) affines from region to plane, as by `Region.theta`.
    size
        Side of the result.

    Returns
    -------
    (B, C, size, size); outside the plane its border value goes on.
    """
    batch, channels = planes.shape[:2]
    grid = functional.affine_grid(thetas, [batch, channels, size, size], align_corners=False)
    return functional.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)


def restore(result: Tensor, region: Region, shape: Sequence[int], fill: float = 0.0) -> Tensor:
    """Bring a result on a region back to the source grid.

    Parameters
    ----------
    result
        (C, size, size) on the region.
    region
        The region that `sample` cut.
    shape
        (Y, X) of the source grid.
    fill
        Value outside the region.

    Returns
    -------
    (C, Y, X).
    """
    inside, inner = restore_inside(result, region, shape)
    back = result.new_full((result.shape[0], *shape), fill)
    back[:, inside[0], inside[1]] = inner
    return back


def restore_inside(result: Tensor, region: Region, shape: Sequence[int]) -> tuple[tuple[slice, slice], Tensor]:
    """Return which rows and columns of the source grid lie in the region, and (C, y, x) the result there.

    The region's axes are the plane's, so that bilinear interpolation is one along the columns, then one along the rows.
    """
    height, width = result.shape[1:]
    rows = _Axis.between(shape[0], region.center_y, region.half_height, height)
    columns = _Axis.between(shape[1], region.center_x, region.half_width, width)
    wide = columns.interpolated(result, dim=2)  # (C, size, x)
    return (rows.inside, columns.inside), rows.interpolated(wide, dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Where the source pixels of one axis lie between the pixels of a result."""

    inside: slice
    """Source pixels whose centres lie in the region."""
    low: NDArray[np.int64]
    """Of each of these, the pixel before it; `high` the one after it, the border's own at the border."""
    high: NDArray[np.int64]
    share: NDArray[np.float32]
    """How far it lies from `low` to `high`, 0..1."""

    @classmethod
    def between(cls, length: int, center: float, half: float, size: int) -> _Axis:
        """Place `length` source pixels on the `size` pixels of the region `center` - `half` to `center` + `half`."""
        places = ((2 * np.arange(length) + 1) / length - 1 - center) / half  # -1..1 in the region
        own = np.flatnonzero(np.abs(places) <= 1)
        inside = slice(int(own[0]), int(own[-1]) + 1) if own.size else slice(0, 0)
        pixels = np.clip(((places[inside] + 1) * size - 1) / 2, 0, size - 1)
        low = pixels.astype(np.int64)
        return cls(inside, low, np.minimum(low + 1, size - 1), (pixels - low).astype(np.float32))

    def interpolated(self, values: Tensor, dim: int) -> Tensor:
        """Return (C, Y, X) values at the source pixels along a dimension."""
        low, high = (torch.from_numpy(each).to(values.device) for each in (self.low, self.high))
        share = torch.from_numpy(self.share).to(values.device, values.dtype)
        ends = values.index_select(dim, low), values.index_select(dim, high)
        return torch.lerp(*ends, share if dim == values.ndim - 1 else share[:, None])
