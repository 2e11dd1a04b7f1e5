"""The `[network]` table of a bundle for volumes: how deep, and how wide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from inference.networks.fields import in_fields
from inference.networks.parts import CONVOLUTION_NAMES

Stride = tuple[int, int, int]
"""(z, y, x)."""

_CHANNEL_STEP = 8
"""With 4 channels in channels-last layout the CPU convolutions of torch 2.15 write past their buffers in backward.
From 16 channels up its 3-D convolutions are the fast ones: 8 take longer than 16."""
_AXES = 3


@dataclass(frozen=True, slots=True)
class HybridMedNet3dConfig:
    """The `[network]` table of a bundle."""

    widths: tuple[int, ...] = (16, 32, 64, 96)
    """Channels of each stage, finest first."""
    strides: tuple[Stride, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    """(z, y, x) from each stage to the next; 1 along z where slices are thick."""
    convolution: str = "hybrid"
    """One of `inference.networks.parts.CONVOLUTION_NAMES`."""
    stem: Stride = (1, 1, 1)
    """(z, y, x) from the volume to the first stage."""

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> HybridMedNet3dConfig:
        """Read the table; raises ValueError naming the field that does not fit."""
        config = in_fields(cls, table)
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError naming the field that does not fit."""
        if self.convolution not in CONVOLUTION_NAMES:
            raise ValueError(f"network.convolution: {self.convolution!r} is none of {', '.join(CONVOLUTION_NAMES)}")
        if not self.widths or any(width <= 0 or width % _CHANNEL_STEP for width in self.widths):
            raise ValueError(f"network.widths: must be multiples of {_CHANNEL_STEP}, is {list(self.widths)}")
        if len(self.strides) != len(self.widths) - 1:
            raise ValueError(f"network.strides: must be {len(self.widths) - 1} for these widths, is {self.strides}")
        if any(not set(stride) <= {1, 2} for stride in self.strides):
            raise ValueError(f"network.strides: each must be three times 1 or 2, is {self.strides}")
        if not set(self.stem) <= {1, 2}:
            raise ValueError(f"network.stem: must be three times 1 or 2, is {self.stem}")

    @property
    def divisor(self) -> Stride:
        """What the sides (z, y, x) of the network's input must be multiples of."""
        z, y, x = (math.prod(stride[axis] for stride in (self.stem, *self.strides)) for axis in range(_AXES))
        return z, y, x
