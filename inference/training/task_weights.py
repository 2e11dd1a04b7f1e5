"""Weights of the parts of the loss, learnt: a part that stays uncertain counts less.

Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018: each part L with the
logarithm s of its variance adds exp(-s) L + s. Where a part can reach 0, or is negative, s would run off to minus
infinity and the others would no longer count; so s is kept within ± `BOUND` by a hyperbolic tangent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

BOUND = 2.0
"""A part's weight lies between exp(-2) and exp(2): 0.14 and 7.4."""


class TaskWeights(nn.Module):
    """The logarithms of the parts' variances; at the beginning all weights are 1.

    Parameters
    ----------
    names
        The parts.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.raw = nn.Parameter(torch.zeros(len(names)))

    def log_variances(self) -> Tensor:
        """Return (parts,) within ± `BOUND`."""
        return BOUND * torch.tanh(self.raw / BOUND)

    def weights(self) -> dict[str, float]:
        """Return the weight of each part as it stands."""
        return dict(zip(self.names, (-self.log_variances().detach()).exp().tolist(), strict=True))

    def forward(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the total of the parts that are there; each is a scalar."""
        by_name = dict(zip(self.names, self.log_variances(), strict=True))
        return torch.stack([(-by_name[name]).exp() * part + by_name[name] for name, part in parts.items()]).sum()
