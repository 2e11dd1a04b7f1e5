"""Several scales into one, weighed anew for every image.

Selective fusion after Li et al., "Selective Kernel Networks", CVPR 2019: a softmax over branches, so that every fused
value is a mean of the scales' values. The kinds differ in what the weights look at and in how far they differ within an
image: `FUSIONS` holds those that `[network] fusion` names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Fusion(nn.Module):
    """The weighted sum of all scales of one pyramid level, on the grid of the first scale.

    Parameters
    ----------
    channels
        Width of the maps.
    scales
        Number of scales.
    """

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__()
        self.channels, self.scales = channels, scales

    def weights(self, maps: Sequence[Tensor]) -> Tensor:
        """Return weights that broadcast to (B, S, C, Y, X) on the first map's grid and sum to 1 over the S scales."""
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the fused (B, C, Y, X) map of S maps (B, C, Y_s, X_s)."""
        weights = self.weights(maps)
        fused = torch.zeros_like(maps[0])
        for index, scale in enumerate(maps):
            fused = fused + weights[:, index] * on_grid_of(maps[0], scale)  # (B, C, Y, X)
        return fused


class PooledFusion(Fusion):
    """One weight per scale, from the means over the image (global average pooling)."""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__(channels, scales)
        self.score = nn.Linear(channels, 1)
        self.preference = nn.Parameter(torch.zeros(scales))

    def weights(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S, 1, 1, 1)."""
        learned = self.score(described(maps)).squeeze(2) + self.preference  # (B, S)
        return torch.softmax(learned, dim=1)[:, :, None, None, None]


class AdaptiveFusion(PooledFusion):
    """As pooled fusion; besides, a scale that agrees with the others counts for more."""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__(channels, scales)
        self.agreement = nn.Parameter(torch.ones(()))

    def weights(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S, 1, 1, 1)."""
        means = described(maps)  # (B, S, C)
        similarity = functional.cosine_similarity(means, means.mean(dim=1, keepdim=True), dim=2)  # (B, S)
        scores = self.score(means).squeeze(2) + self.preference + self.agreement * similarity
        return torch.softmax(scores, dim=1)[:, :, None, None, None]


class ChannelFusion(Fusion):
    """A weight per scale and channel (Selective Kernel, equations 3 to 6)."""

    def __init__(self, channels: int, scales: int, reduction: int = 4) -> None:
        super().__init__(channels, scales)
        hidden = max(channels // reduction, 8)
        self.squeeze = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU())
        self.excite = nn.Linear(hidden, scales * channels)

    def scores(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S, C, 1, 1) scores before the softmax."""
        total = described(maps).sum(dim=1)  # (B, C)
        scores: Tensor = self.excite(self.squeeze(total))  # (B, S * C)
        return scores.view(-1, self.scales, self.channels, 1, 1)

    def weights(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S, C, 1, 1)."""
        return torch.softmax(self.scores(maps), dim=1)


class SpatialFusion(Fusion):
    """A weight per scale and place (Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection", 2019)."""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__(channels, scales)
        self.score = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in range(scales))

    def scores(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S, 1, Y, X) scores before the softmax."""
        each = [on_grid_of(maps[0], score(scale)) for score, scale in zip(self.score, maps, strict=True)]
        return torch.stack(each, dim=1)

    def weights(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S, 1, Y, X)."""
        return torch.softmax(self.scores(maps), dim=1)


class HybridFusion(Fusion):
    """A weight per scale, channel and place: the scores of channel and spatial fusion, added."""

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__(channels, scales)
        self.channel = ChannelFusion(channels, scales)
        self.spatial = SpatialFusion(channels, scales)

    def weights(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S, C, Y, X)."""
        return torch.softmax(self.channel.scores(maps) + self.spatial.scores(maps), dim=1)


def on_grid_of(reference: Tensor, features: Tensor) -> Tensor:
    """Return (B, C, Y_s, X_s) features interpolated onto the grid (Y, X) of a reference."""
    if features.shape[-2:] == reference.shape[-2:]:
        return features
    return functional.interpolate(features, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def described(maps: Sequence[Tensor]) -> Tensor:
    """Return the means (B, S, C) over the places of S maps."""
    return torch.stack([scale.mean(dim=(2, 3)) for scale in maps], dim=1)


FUSIONS: dict[str, Callable[[int, int], Fusion]] = {
    "adaptive": AdaptiveFusion,
    "gap": PooledFusion,
    "channel": ChannelFusion,
    "spatial": SpatialFusion,
    "hybrid": HybridFusion,
}
