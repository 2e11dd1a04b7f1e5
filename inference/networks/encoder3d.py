"""A residual trunk for volumes, each stage on a coarser grid.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in three dimensions as in Isensee et al.,
"nnU-Net Revisited", MICCAI 2024 (residual encoder). Norms are per case (Ulyanov et al., "Instance Normalization",
2016): batches of volumes are too small for statistics over them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from inference.networks.config3d import Stride
from inference.networks.hybrid_convolution import MakeConvolution

_SLOPE = 0.01


class ResidualBlock3d(nn.Module):
    """Two convolutions and a way around them; keeps (Z, Y, X).

    Parameters
    ----------
    channels_in, channels_out
        Channels.
    convolution
        Makes the convolutions.
    """

    def __init__(self, channels_in: int, channels_out: int, convolution: MakeConvolution) -> None:
        super().__init__()
        self.first = convolution(channels_in, channels_out)
        self.first_norm = nn.InstanceNorm3d(channels_out, affine=True)
        self.second = convolution(channels_out, channels_out)
        self.second_norm = nn.InstanceNorm3d(channels_out, affine=True)
        self.around = nn.Identity() if channels_in == channels_out else nn.Conv3d(channels_in, channels_out, 1)
        self.activate = nn.LeakyReLU(_SLOPE)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, channels_out, Z, Y, X)."""
        inner = self.activate(self.first_norm(self.first(features)))  # (B, C', Z, Y, X)
        inner = self.second_norm(self.second(inner)) + self.around(features)
        out: Tensor = self.activate(inner)
        return out


class ResidualEncoder3d(nn.Module):
    """Features of a volume on grids that get coarser.

    Parameters
    ----------
    widths
        Channels of each stage, finest first.
    strides
        Step (z, y, x) from each stage to the next: one less than stages.
    convolution
        Makes the convolutions of the blocks.
    stem
        Step from the volume to the first stage. Its voxels are laid out as channels before anything is learnt, so
        that nothing is lost where the first stage has at least as many channels as the step takes voxels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[Stride],
        convolution: MakeConvolution,
        stem: Stride = (1, 1, 1),
    ) -> None:
        super().__init__()
        inputs = (widths[0], *widths[:-1])
        self.stem = nn.Conv3d(1, widths[0], stem, stem)
        self.reduce = nn.ModuleList(
            nn.Conv3d(width, width, stride, stride) for width, stride in zip(widths[:-1], strides, strict=True)
        )
        self.stages = nn.ModuleList(
            ResidualBlock3d(width_in, width, convolution) for width_in, width in zip(inputs, widths, strict=True)
        )

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Return the stages' features of a (B, 1, Z, Y, X) volume, finest first."""
        features: Tensor = self.stages[0](self.stem(volume))  # (B, widths[0], Z / stem, ...)
        levels = [features]
        for reduce, stage in zip(self.reduce, list(self.stages)[1:], strict=True):
            features = stage(reduce(features))  # (B, widths[i], Z / strides, ...)
            levels.append(features)
        return levels
