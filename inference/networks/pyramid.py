"""The image at several scales, and its features at several strides.

Image pyramid: Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983: low-pass before every reduction.
Feature pyramid: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork


def at_scale(image: Tensor, scale: float) -> Tensor:
    """Resample (B, C, Y, X) by `scale`, low-passed first so that fine texture does not alias into the small image."""
    if scale == 1:
        return image
    size = [round(side * scale) for side in image.shape[-2:]]
    # In float32: not every device low-passes in fewer bits.
    resampled = functional.interpolate(image.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return resampled.to(image.dtype)  # (B, C, scale * Y, scale * X)


class FeaturePyramid(nn.Module):
    """Features of all strides with one width, coarse meaning carried down into fine maps.

    Parameters
    ----------
    in_channels
        Width of each backbone stage, finest first.
    channels
        Width of every level of the result.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.network = FeaturePyramidNetwork(list(in_channels), channels)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Return one (B, channels, Y_i, X_i) map per stage, on that stage's grid."""
        named = OrderedDict((str(index), stage) for index, stage in enumerate(stages))
        return list(self.network(named).values())
