"""Several scales into one, weighed anew for every image.

Selective fusion after Li et al., "Selective Kernel Networks", CVPR 2019: a softmax over branches. The branch scores
add a learned part (how telling this scale is for this image) and a similarity part (how far it agrees with the other
scales).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class AdaptiveFusion(nn.Module):
    """Fuse one pyramid level of all scales on the grid of the first scale.

    Parameters
    ----------
    channels
        Width of the maps.
    scales
        Number of scales.
    """

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)
        self.preference = nn.Parameter(torch.zeros(scales))
        self.agreement = nn.Parameter(torch.ones(()))

    def weights(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, S) weights that sum to 1 over the S scales."""
        described = torch.stack([scale.mean(dim=(2, 3)) for scale in maps], dim=1)  # (B, S, C)
        consensus = described.mean(dim=1, keepdim=True)  # (B, 1, C)
        similarity = functional.cosine_similarity(described, consensus, dim=2)  # (B, S)
        learned = self.score(described).squeeze(2)  # (B, S)
        return torch.softmax(learned + self.preference + self.agreement * similarity, dim=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum (B, C, Y, X) of S maps (B, C, Y_s, X_s) on the grid of the first."""
        weights = self.weights(maps)
        grid = maps[0].shape[-2:]
        fused = torch.zeros_like(maps[0])
        for index, scale in enumerate(maps):
            on_grid = scale
            if scale.shape[-2:] != grid:
                on_grid = functional.interpolate(scale, size=grid, mode="bilinear", align_corners=False)
            fused = fused + weights[:, index, None, None, None] * on_grid  # (B, C, Y, X)
        return fused
