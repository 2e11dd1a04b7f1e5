"""A trunk of inverted residuals with squeeze and excitation, from torchvision's blocks.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, table 1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

PUBLISHED_WIDTH = 64
"""The width of the table that stands for the published widths of EfficientNet-B0."""
_BLOCKS = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
"""Expansion, kernel, stride, channels in, channels out, layers."""
_LAST_OF_STRIDE = (2, 3, 5, 7)
"""Index, the stem being 0, of the last group of blocks at strides 4, 8, 16 and 32."""


class EfficientNetBackbone(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32 of a one-channel image.

    Parameters
    ----------
    width
        Scales all channels; `PUBLISHED_WIDTH` gives EfficientNet-B0.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, width: int) -> None:
        super().__init__()
        scale = width / PUBLISHED_WIDTH
        settings = [MBConvConfig(*block, width_mult=scale) for block in _BLOCKS]
        whole = EfficientNet(settings, dropout=0.0, num_classes=1, last_channel=settings[-1].out_channels)
        stem = whole.features[0]
        stem[0] = nn.Conv2d(1, stem[0].out_channels, kernel_size=3, stride=2, padding=1, bias=False)
        self.layers = nn.ModuleList(list(whole.features)[: len(_BLOCKS) + 1])  # without the last 1 x 1 convolution
        self.channels = tuple(settings[index - 1].out_channels for index in _LAST_OF_STRIDE)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of the four strides, finest first."""
        features = image
        stages = []
        for index, layer in enumerate(self.layers):
            features = layer(features)
            if index in _LAST_OF_STRIDE:
                stages.append(features)  # (B, channels[i], Y/strides[i], X/strides[i])
        return stages
