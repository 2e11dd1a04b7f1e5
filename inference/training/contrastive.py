"""Supervised contrastive loss: images of one class near each other, those of others far, the hard ones first.

Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020 (the sum outside the logarithm); what is alike though of
another class weighs more, after Robinson et al., "Contrastive Learning with Hard Negative Samples", ICLR 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(features: Tensor, classes: Tensor, temperature: float, hardness: float) -> Tensor:
    """Return the mean over all images that have another one of their class in the batch; 0 where none has.

    Parameters
    ----------
    features
        (B, D); only their directions count.
    classes
        (B,) int64.
    temperature
        Divisor of the cosines.
    hardness
        0: all images of other classes count alike; above, one with the cosine c counts exp(hardness * c) times, in
        units of their mean.
    """
    directions = functional.normalize(features.float(), dim=1)
    cosines = directions @ directions.T  # (B, B)
    is_other_image = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    is_same_class = classes[:, None] == classes[None]
    positive, negative = is_same_class & is_other_image, ~is_same_class
    counts = positive.sum(dim=1)
    if not bool((counts > 0).any()):
        return features.sum() * 0
    weights = _hardness_weights(cosines.detach(), negative, hardness)
    scores = cosines / temperature + torch.where(negative, weights.clamp_min(1e-12).log(), torch.zeros_like(weights))
    scores = scores.masked_fill(~is_other_image, float("-inf"))
    log_shares = cosines / temperature - torch.logsumexp(scores, dim=1, keepdim=True)
    of_each = -(log_shares * positive).sum(dim=1) / counts.clamp_min(1)
    return of_each[counts > 0].mean()


def _hardness_weights(cosines: Tensor, negative: Tensor, hardness: float) -> Tensor:
    """Return (B, B) weights of the images of other classes; their mean in each row is 1."""
    raised = torch.where(negative, (hardness * cosines).exp(), torch.zeros_like(cosines))
    mean = raised.sum(dim=1, keepdim=True) / negative.sum(dim=1, keepdim=True).clamp_min(1)
    return raised / mean.clamp_min(1e-12)
