"""What a place shows, joined with what the whole image shows, by how alike the two are.

After Wang et al., "Non-local Neural Networks", CVPR 2018, with the whole image as the one key (Cao et al., "GCNet",
ICCVW 2019): a place that looks like the rest takes its context, one that does not keeps its own say.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LocalGlobalFusion(nn.Module):
    """Mix every place with the image's mean features.

    Parameters
    ----------
    channels
        Width of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context = nn.Linear(channels, channels)
        self.slope = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.full((), -2.0))
        """At first a place keeps most of its own."""

    def weights(self, features: Tensor) -> Tensor:
        """Return (B, 1, Y, X) weights in 0..1 of the context at each place of (B, C, Y, X) features."""
        mean = features.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        similarity = functional.cosine_similarity(features, mean, dim=1)[:, None]  # (B, 1, Y, X)
        return torch.sigmoid(self.slope * similarity + self.offset)

    def forward(self, features: Tensor) -> Tensor:
        """Return the mixed (B, C, Y, X) features."""
        context = self.context(features.mean(dim=(2, 3)))[:, :, None, None]  # (B, C, 1, 1)
        weights = self.weights(features)
        mixed: Tensor = (1 - weights) * features + weights * context
        return mixed
