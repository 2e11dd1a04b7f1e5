"""A convolution of volumes in two branches: within the planes, and across them.

After Qiu et al., "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks", ICCV 2017 (P3D-C), and
Li et al., "H-DenseUNet: Hybrid Densely Connected UNet", IEEE TMI 2018: what is seen within a plane is passed on as it
is, and what the neighbouring planes add is added to it. Thick slices need the branches apart, since a step across is
several times as long as a step within. Depth is kept: each plane of the result belongs to a plane of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

MakeConvolution: TypeAlias = Callable[[int, int], nn.Module]
"""(channels in, channels out) -> a module that keeps (Z, Y, X)."""


class HybridConvolution(nn.Module):
    """3 x 3 within the planes, then 3 across them, gated per channel; 12 weights per pair of channels, not 27.

    Parameters
    ----------
    channels_in, channels_out
        Channels.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.in_plane = nn.Conv3d(channels_in, channels_out, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.through_plane = nn.Conv3d(channels_out, channels_out, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.gate = nn.Parameter(torch.ones(channels_out))
        """What the neighbouring planes count for; at 0 every plane stands alone."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, channels_out, Z, Y, X)."""
        within = self.in_plane(features)  # (B, C', Z, Y, X)
        across = self.through_plane(within)  # (B, C', Z, Y, X)
        fused: Tensor = within + self.gate[:, None, None, None] * across
        return fused


def full_convolution(channels_in: int, channels_out: int) -> nn.Module:
    """Return a plain 3 x 3 x 3 convolution, for voxels that are about as high as wide."""
    return nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False)


CONVOLUTIONS: dict[str, MakeConvolution] = {"hybrid": HybridConvolution, "full": full_convolution}
