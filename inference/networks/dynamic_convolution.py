"""A convolution whose kernel is mixed anew for every sample.

Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020: K expert kernels, a softmax over them
from the pooled input. The kernels are mixed, not the results: one convolution is computed, whatever K is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class DynamicConvolution(nn.Module):
    """A k x k convolution that keeps the grid.

    Parameters
    ----------
    channels
        Width in and out.
    experts
        Number of kernels K.
    kernel_size
        Odd.
    temperature
        Divisor of the scores; above 1 all kernels learn from the start (section 3.2 of the paper).
    """

    def __init__(self, channels: int, experts: int, kernel_size: int = 3, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature, self.kernel_size = temperature, kernel_size
        self.score = nn.Linear(channels, experts)
        self.kernels = nn.Parameter(torch.empty(experts, channels, channels, kernel_size, kernel_size))
        self.biases = nn.Parameter(torch.zeros(experts, channels))
        nn.init.normal_(self.kernels, std=math.sqrt(2 / (channels * kernel_size**2)))

    def mixture(self, features: Tensor) -> Tensor:
        """Return (B, K) weights that sum to 1."""
        return torch.softmax(self.score(features.mean(dim=(2, 3))) / self.temperature, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the convolved (B, C, Y, X) features."""
        batch, channels, height, width = features.shape
        mixture = self.mixture(features)
        kernels = torch.einsum("bk,koiyx->boiyx", mixture, self.kernels)  # (B, C, C, k, k)
        # A group per sample: each is convolved with its own kernel in one call.
        convolved = functional.conv2d(
            features.reshape(1, batch * channels, height, width),
            kernels.reshape(batch * channels, channels, self.kernel_size, self.kernel_size),
            (mixture @ self.biases).flatten(),
            padding=self.kernel_size // 2,
            groups=batch,
        )
        return convolved.view(batch, channels, height, width)
