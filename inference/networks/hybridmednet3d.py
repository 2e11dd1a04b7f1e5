"""HybridMedNet for volumes: a residual encoder of hybrid or full convolutions, and a decoder that segments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from inference.networks.decoder3d import SegmentationDecoder3d
from inference.networks.encoder3d import ResidualEncoder3d, Stride
from inference.networks.hybrid_convolution import CONVOLUTIONS

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
    """One of `CONVOLUTIONS`."""
    stem: Stride = (1, 1, 1)
    """(z, y, x) from the volume to the first stage."""

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> HybridMedNet3dConfig:
        """Read the table; raises ValueError naming the field that does not fit."""
        given = {key: value for key, value in table.items() if key != "kind"}
        if unknown := sorted(given.keys() - cls.__dataclass_fields__.keys()):
            raise ValueError(f"network.{unknown[0]}: unknown field")
        if isinstance(widths := given.get("widths"), list):
            given["widths"] = tuple(widths)
        if isinstance(strides := given.get("strides"), list):
            given["strides"] = tuple(tuple(stride) for stride in strides)
        if isinstance(stem := given.get("stem"), list):
            given["stem"] = tuple(stem)
        config = cls(**given)  # type: ignore[arg-type]  # values of a TOML table; checked below
        if config.convolution not in CONVOLUTIONS:
            raise ValueError(f"network.convolution: {config.convolution!r} is none of {', '.join(CONVOLUTIONS)}")
        if not config.widths or any(width <= 0 or width % _CHANNEL_STEP for width in config.widths):
            raise ValueError(f"network.widths: must be multiples of {_CHANNEL_STEP}")
        if len(config.strides) != len(config.widths) - 1:
            raise ValueError("network.strides: must be one less than widths")
        if any(len(stride) != _AXES or not set(stride) <= {1, 2} for stride in config.strides):
            raise ValueError("network.strides: each must be three times 1 or 2")
        if len(config.stem) != _AXES or not set(config.stem) <= {1, 2}:
            raise ValueError("network.stem: must be three times 1 or 2")
        return config

    @property
    def divisor(self) -> Stride:
        """What the sides (z, y, x) of the network's input must be multiples of."""
        z, y, x = (math.prod(stride[axis] for stride in (self.stem, *self.strides)) for axis in range(_AXES))
        return z, y, x


class HybridMedNet3d(nn.Module):
    """A segmenter of volumes.

    Parameters
    ----------
    config
        Sizes.
    classes
        Background included.
    """

    def __init__(self, config: HybridMedNet3dConfig, classes: int) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[config.convolution]
        self.divisor = config.divisor
        sizes = config.widths, config.strides
        self.encoder = ResidualEncoder3d(*sizes, convolution, config.stem)
        self.decoder = SegmentationDecoder3d(*sizes, classes, convolution, config.stem)

    def forward(self, volume: Tensor) -> Tensor:
        """Return (B, classes, Z, Y, X) scores of a (B, 1, Z, Y, X) volume; sides are multiples of `divisor`."""
        scores: Tensor = self.decoder(self.encoder(volume))
        return scores
