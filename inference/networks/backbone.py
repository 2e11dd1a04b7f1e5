"""Trunks by name. Here the residual ones, of torchvision's blocks; the others in modules of their own.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1, conv3x3

from inference.networks.efficientnet import EfficientNetBackbone
from inference.networks.hrnet import HighResolutionBackbone
from inference.networks.parts import (
    BOTTLENECKS,
    EFFICIENTNET_BACKBONES,
    HRNET_BACKBONES,
    RESIDUAL_DEPTHS,
    SWIN_DEPTHS,
)
from inference.networks.swin import SwinBackbone

Backbone: TypeAlias = "ResidualBackbone | SwinBackbone | EfficientNetBackbone | HighResolutionBackbone"


def build_backbone(name: str, width: int, inner: Sequence[int] = ()) -> Backbone:
    """Return the trunk `name`; its `channels` are the widths of the four maps, finest first.

    Parameters
    ----------
    inner
        Channels inside each block of a trunk of `PRUNABLE`; as published without it.
    """
    if name in SWIN_DEPTHS:
        return SwinBackbone(name, width)
    if name in EFFICIENTNET_BACKBONES:
        return EfficientNetBackbone(width)
    if name in HRNET_BACKBONES:
        return HighResolutionBackbone(width)
    return ResidualBackbone(name, width, inner)


class ResidualBackbone(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32 of a one-channel image.

    Parameters
    ----------
    name
        'resnet10', with one block per stage, or one of the published depths.
    width
        Channels of the stem. 64 gives the published networks; less makes each of them slim enough for a CPU.
    inner
        Channels between the two convolutions of each block, for trunks that were pruned.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, name: str, width: int = 64, inner: Sequence[int] = ()) -> None:
        super().__init__()
        block: type[BasicBlock | Bottleneck] = Bottleneck if name in BOTTLENECKS else BasicBlock
        depths = RESIDUAL_DEPTHS[name]
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        channels = width
        for index, depth in enumerate(depths):
            self.stages.append(_stage(block, channels, width << index, depth, stride=1 if index == 0 else 2))
            channels = (width << index) * block.expansion
        self.channels = tuple((width << index) * block.expansion for index in range(len(depths)))
        blocks = [module for module in self.modules() if isinstance(module, BasicBlock)] if inner else []
        for narrowed, left in zip(blocks, inner, strict=True):
            _narrow(narrowed, left)
        _initialise(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the four stages' features, finest first."""
        features = self.stem(image)  # (B, width, Y/4, X/4)
        stages = []
        for stage in self.stages:
            features = stage(features)
            stages.append(features)  # (B, channels[i], Y/strides[i], X/strides[i])
        return stages


def _stage(
    block: type[BasicBlock | Bottleneck], in_channels: int, planes: int, depth: int, stride: int
) -> nn.Sequential:
    """Return `depth` blocks, the first of which changes grid and width."""
    out_channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
    first = block(in_channels, planes, stride, shortcut)
    return nn.Sequential(first, *(block(out_channels, planes) for _ in range(depth - 1)))


def _narrow(block: BasicBlock, channels: int) -> None:
    """Give a block `channels` between its convolutions."""
    first, second = block.conv1, block.conv2
    block.conv1 = conv3x3(first.in_channels, channels, first.stride[0])
    block.bn1 = nn.BatchNorm2d(channels)
    block.conv2 = conv3x3(channels, second.out_channels)


def _initialise(trunk: nn.Module) -> None:
    """Keep the variance through the layers (He et al., ICCV 2015)."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
