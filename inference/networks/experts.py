"""A head of several experts, whose say depends on the image.

Jacobs et al., "Adaptive Mixtures of Local Experts", Neural Computation 1991; the evenness term after Shazeer et al.,
"Outrageously Large Neural Networks", ICLR 2017 (equation 6). All experts are evaluated: a head is small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExpertHead(nn.Module):
    """Scores as a mean of K linear experts, weighed per sample.

    Parameters
    ----------
    features
        Width of the input.
    classes
        Number of scores.
    experts
        Number of experts K.
    """

    def __init__(self, features: int, classes: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(features, experts)
        self.experts = nn.ModuleList(nn.Linear(features, classes) for _ in range(experts))

    def mixture(self, features: Tensor) -> Tensor:
        """Return (B, K) weights that sum to 1."""
        return torch.softmax(self.gate(features), dim=1)

    def weighed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, classes) scores of (B, features), and the (B, K) mixture that they were weighed by."""
        scores = torch.stack([expert(features) for expert in self.experts], dim=1)  # (B, K, classes)
        mixture = self.mixture(features)
        return (mixture[:, :, None] * scores).sum(dim=1), mixture

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, classes) scores of (B, features)."""
        return self.weighed(features)[0]


def unevenness(mixture: Tensor) -> Tensor:
    """Return the squared coefficient of variation of the experts' importance over a batch; 0 where all count alike.

    Parameters
    ----------
    mixture
        (B, K) weights.
    """
    importance = mixture.sum(dim=0)  # (K,)
    return importance.var(unbiased=False) / importance.mean().square()
