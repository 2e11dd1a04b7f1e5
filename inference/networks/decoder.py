"""Pyramid features into a segmentation.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019: every level through a convolution, up to the finest
grid, summed, and classified there.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class SegmentationDecoder(nn.Module):
    """Scores per pixel.

    Parameters
    ----------
    channels
        Width of a pyramid level.
    levels
        Number of pyramid levels.
    classes
        Background included.
    width
        Width inside the decoder.
    """

    def __init__(self, channels: int, levels: int, classes: int, width: int = 48) -> None:
        super().__init__()
        self.lift = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for _ in range(levels)
        )
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, levels: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return (B, classes, *size) scores from (B, C, Y_i, X_i) levels, finest first."""
        grid = levels[0].shape[-2:]
        lifted = self.lift[0](levels[0])  # (B, width, Y_0, X_0)
        for lift, level in zip(list(self.lift)[1:], levels[1:], strict=True):
            up = functional.interpolate(lift(level), size=grid, mode="bilinear", align_corners=False)
            lifted = lifted + up  # (B, width, Y_0, X_0)
        scores = self.classify(lifted)  # (B, classes, Y_0, X_0)
        return functional.interpolate(scores, size=list(size), mode="bilinear", align_corners=False)
