"""Contrast-limited adaptive histogram equalisation.

Pizer et al., "Adaptive Histogram Equalization and Its Variations", CVGIP 39, 1987; the limit and the interpolation
after Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994. Neither torchvision nor
MONAI has it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_BINS = 256
_HALVINGS = 16


def equalised(image: Tensor, tiles: int, limit: float) -> Tensor:
    """Return (B, 1, Y, X) images in 0..1, equalised tile by tile.

    Parameters
    ----------
    image
        (B, 1, Y, X) in 0..1.
    tiles
        Tiles along each side.
    limit
        Most that a grey value may count in its tile's histogram, in units of an even histogram: 1 leaves the image
        all but as it is, many leave the equalisation unlimited.
    """
    height, width = image.shape[-2:]
    padded = functional.pad(image, (0, -width % tiles, 0, -height % tiles), mode="replicate")
    maps = _tile_maps(padded, tiles, limit)  # (B, tiles * tiles, bins)
    return _mapped(padded, maps, tiles)[..., :height, :width]


def _tile_maps(image: Tensor, tiles: int, limit: float) -> Tensor:
    """Return for each tile the equalised value of each grey value."""
    batch, _, height, width = image.shape
    cut = image.view(batch, tiles, height // tiles, tiles, width // tiles).transpose(2, 3)
    grey = _binned(cut.reshape(batch, tiles * tiles, -1))  # (B, T, pixels)
    counts = torch.zeros(batch, tiles * tiles, _BINS, device=image.device)
    counts.scatter_add_(2, grey, torch.ones_like(grey, dtype=counts.dtype))
    clipped = _limited(counts, max(limit, 1.0) * grey.shape[2] / _BINS)
    # The middle of each bar, so that an even histogram leaves every value where it is.
    return (clipped.cumsum(dim=2) - clipped / 2) / grey.shape[2]


def _limited(counts: Tensor, most: float) -> Tensor:
    """Cut (B, T, bins) counts off where, once what was cut off is spread evenly, the largest is `most`."""
    low, high = torch.zeros_like(counts[..., :1]), torch.full_like(counts[..., :1], most)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_below = middle + (counts - middle).clamp_min(0).sum(dim=2, keepdim=True) / _BINS < most
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return counts.minimum(low) + (counts - low).clamp_min(0).sum(dim=2, keepdim=True) / _BINS


def _mapped(image: Tensor, maps: Tensor, tiles: int) -> Tensor:
    """Return each pixel's value by the maps of the four tiles around it, mixed by its distance from their centres."""
    batch, _, height, width = image.shape
    grey = _binned(image).view(batch, -1)  # (B, Y * X)
    flat = maps.flatten(1)  # (B, T * bins)
    top, bottom, down = _neighbours(height, tiles, image.device)
    left, right, across = _neighbours(width, tiles, image.device)
    mixed = torch.zeros_like(grey, dtype=image.dtype)
    for row, row_share in ((top, 1 - down), (bottom, down)):
        for column, column_share in ((left, 1 - across), (right, across)):
            tile = (row[:, None] * tiles + column).view(1, -1)  # (1, Y * X)
            share = (row_share[:, None] * column_share).view(1, -1)
            mixed = mixed + share * flat.gather(1, tile * _BINS + grey)
    return mixed.view(image.shape)


def _neighbours(side: int, tiles: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each place the tile whose centre lies before it, the one after it, and the latter's share."""
    places = (torch.arange(side, device=device) + 0.5) * tiles / side - 0.5  # in tiles from the first centre
    before = places.floor()
    return (
        before.clamp(0, tiles - 1).long(),
        (before + 1).clamp(0, tiles - 1).long(),
        places - before,
    )


def _binned(image: Tensor) -> Tensor:
    return (image * _BINS).long().clamp(0, _BINS - 1)
