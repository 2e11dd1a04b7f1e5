"""What a coarser or smaller map needs before it is added to a finer one: the same meaning, place and magnitude.

Place: Li et al., "Semantic Flow for Fast and Accurate Scene Parsing", ECCV 2020: a learned field of offsets bends the
enlarged map onto the finer one. Meaning: a 1 x 1 convolution of its own for each scale. Magnitude: each channel is
brought to the mean and spread that it has in the finer map (Huang and Belongie, "Arbitrary Style Transfer in Real-time
with Adaptive Instance Normalization", ICCV 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEAST_SPREAD = 1e-3


def with_spread_of(features: Tensor, reference: Tensor) -> Tensor:
    """Return (B, C, Y, X) features, each channel with the mean and spread over the places of `reference`'s."""
    spread = features.std(dim=(2, 3), keepdim=True, correction=0).clamp_min(_LEAST_SPREAD)  # (B, C, 1, 1)
    normal = (features - features.mean(dim=(2, 3), keepdim=True)) / spread
    wanted = reference.std(dim=(2, 3), keepdim=True, correction=0).clamp_min(_LEAST_SPREAD)
    return normal * wanted + reference.mean(dim=(2, 3), keepdim=True)


def moved(features: Tensor, offsets: Tensor) -> Tensor:
    """Sample features where the offsets point.

    Parameters
    ----------
    features
        (B, C, Y, X).
    offsets
        (B, 2, Y, X): along x and y, in pixels of this grid.
    """
    height, width = features.shape[-2:]
    rows = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=features.device, dtype=features.dtype)
    columns = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=features.device, dtype=features.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    along_x, along_y = offsets.unbind(dim=1)  # (B, Y, X) each
    steps = torch.stack([along_x * (2 / width), along_y * (2 / height)], dim=3)
    where = torch.stack([x, y], dim=2) + steps  # (B, Y, X, 2)
    return functional.grid_sample(features, where, mode="bilinear", padding_mode="border", align_corners=False)


class Alignment(nn.Module):
    """Bring the map of another scale onto a reference's grid, places, meaning and magnitude.

    It starts as interpolation with the magnitude alone: the offsets begin at nothing, the meaning at itself.

    Parameters
    ----------
    channels
        Width of both maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.meaning = nn.Conv2d(channels, channels, 1)
        self.offsets = nn.Conv2d(2 * channels, 2, 3, padding=1)
        nn.init.dirac_(self.meaning.weight)
        for parameter in (self.meaning.bias, self.offsets.weight, self.offsets.bias):
            if parameter is not None:
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor, reference: Tensor) -> Tensor:
        """Return (B, C, Y_s, X_s) features on the grid (Y, X) of a (B, C, Y, X) reference."""
        meant = self.meaning(features)
        if meant.shape[-2:] != reference.shape[-2:]:
            meant = functional.interpolate(meant, size=reference.shape[-2:], mode="bilinear")
        placed = moved(meant, self.offsets(torch.cat([meant, reference], dim=1)))  # (B, C, Y, X)
        return with_spread_of(placed, reference)
