"""HybridMedNet for volumes: a residual encoder of hybrid or full convolutions, and a decoder that segments."""

from __future__ import annotations

from torch import Tensor, nn

from inference.networks.config3d import HybridMedNet3dConfig
from inference.networks.decoder3d import SegmentationDecoder3d
from inference.networks.encoder3d import ResidualEncoder3d
from inference.networks.hybrid_convolution import CONVOLUTIONS


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
