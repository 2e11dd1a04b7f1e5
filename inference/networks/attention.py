"""What and where to look at: weights of channels, weights of places.

Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, and Woo et al., "CBAM", ECCV 2018. All weights lie between 0
and 1 and keep the shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Weigh channels by what their mean and their maximum over the image say (CBAM, equation 2)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.excite = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def weights(self, features: Tensor) -> Tensor:
        """Return (B, C) weights in 0..1."""
        mean = features.mean(dim=(2, 3))  # (B, C)
        peak = features.amax(dim=(2, 3))  # (B, C)
        return torch.sigmoid(self.excite(mean) + self.excite(peak))

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` (B, C, Y, X) with each channel weighed."""
        return features * self.weights(features)[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weigh places by what the mean and the maximum over channels say (CBAM, equation 3)."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.locate = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def weights(self, features: Tensor) -> Tensor:
        """Return (B, 1, Y, X) weights in 0..1."""
        mean = features.mean(dim=1, keepdim=True)
        peak = features.amax(dim=1, keepdim=True)
        return torch.sigmoid(self.locate(torch.cat([mean, peak], dim=1)))  # (B, 2, Y, X) -> (B, 1, Y, X)

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` (B, C, Y, X) with each place weighed."""
        return features * self.weights(features)


class SqueezeExcitation(nn.Module):
    """Weigh channels by what their mean over the image says (Hu et al., equation 3)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.excite = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def weights(self, features: Tensor) -> Tensor:
        """Return (B, C, 1, 1) weights in 0..1."""
        return torch.sigmoid(self.excite(features.mean(dim=(2, 3))))[:, :, None, None]

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` (B, C, Y, X) with each channel weighed."""
        return features * self.weights(features)
