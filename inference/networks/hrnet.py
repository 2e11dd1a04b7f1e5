"""A trunk that keeps the fine grid: branches at all strides side by side, which tell each other what they see.

Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", IEEE TPAMI 2020: a branch is added
in every stage, and at the end of each stage every branch takes the sum of all of them on its own grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, conv1x1

_BRANCHES = 4


class Gathering(nn.Module):
    """One branch becomes the sum of all branches on its grid.

    A finer branch comes down by strided 3 x 3 convolutions, a coarser one up by a 1 x 1 convolution and interpolation.

    Parameters
    ----------
    channels
        Width of each branch, finest first; each branch has half the grid of the one before.
    target
        Index of the branch.
    """

    def __init__(self, channels: Sequence[int], target: int) -> None:
        super().__init__()
        self.target = target
        self.ways = nn.ModuleList(_way(channels, source, target) for source in range(len(channels)))

    def forward(self, branches: Sequence[Tensor]) -> Tensor:
        """Return a (B, channels[target], Y, X) map."""
        grid = branches[self.target].shape[-2:]
        total = torch.zeros_like(branches[self.target])
        for way, branch in zip(self.ways, branches, strict=True):
            brought = way(branch)
            if brought.shape[-2:] != grid:
                brought = functional.interpolate(brought, size=grid, mode="bilinear")
            total = total + brought  # (B, channels[target], Y, X)
        return functional.relu(total)


class FuseLayer(nn.Module):
    """Every branch gathers what all branches see.

    Parameters
    ----------
    channels
        Width of each branch, finest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.gatherings = nn.ModuleList(Gathering(channels, target) for target in range(len(channels)))

    def forward(self, branches: Sequence[Tensor]) -> list[Tensor]:
        """Return one (B, channels[i], Y_i, X_i) map per branch."""
        return [gather(branches) for gather in self.gatherings]


class Stage(nn.Module):
    """Residual blocks for every branch by itself.

    Parameters
    ----------
    channels
        Width of each branch, finest first.
    blocks
        Blocks of each.
    """

    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(blocks))) for width in channels
        )

    def forward(self, branches: Sequence[Tensor]) -> list[Tensor]:
        """Return one (B, channels[i], Y_i, X_i) map per branch."""
        return [residual(branch) for residual, branch in zip(self.branches, branches, strict=True)]


class HighResolutionBackbone(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32 of a one-channel image.

    Parameters
    ----------
    width
        Channels of the finest branch; each coarser one has twice as many. 18 gives the widths of HRNet-W18.
    blocks
        Residual blocks of each branch in each stage.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, width: int, blocks: int = 1) -> None:
        super().__init__()
        self.channels = tuple(width << branch for branch in range(_BRANCHES))
        self.stem = nn.Sequential(_reduction(1, width), _reduction(width, width))
        self.openings = nn.ModuleList(
            _reduction(self.channels[branch - 1], self.channels[branch]) for branch in range(1, _BRANCHES)
        )
        self.stages = nn.ModuleList(Stage(self.channels[: branches + 1], blocks) for branches in range(_BRANCHES))
        self.fuses = nn.ModuleList(FuseLayer(self.channels[: stage + 1]) for stage in range(1, _BRANCHES))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the four branches, finest first."""
        branches = self.stages[0]([self.stem(image)])  # (B, width, Y/4, X/4)
        for opening, stage, fuse in zip(self.openings, list(self.stages)[1:], self.fuses, strict=True):
            branches.append(opening(branches[-1]))  # half the grid, twice the channels
            branches = fuse(stage(branches))
        found: list[Tensor] = branches
        return found


def _reduction(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return a convolution onto half the grid."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def _way(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """Return what brings branch `source` to the width, and where it is finer the grid, of branch `target`."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(conv1x1(channels[source], channels[target]), nn.BatchNorm2d(channels[target]))
    steps = [_reduction(channels[source], channels[source]) for _ in range(target - source - 1)]
    last = nn.Conv2d(channels[source], channels[target], 3, stride=2, padding=1, bias=False)
    return nn.Sequential(*steps, last, nn.BatchNorm2d(channels[target]))
