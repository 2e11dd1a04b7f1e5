"""What training minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from monai.losses.dice import DiceCELoss
from torch import Tensor
from torch.nn import functional

from inference.networks.heads import LogProbabilities, hierarchical_log_probabilities
from inference.networks.hybridmednet import NetworkOutput
from inference.training.augmentation import Batch


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The `[training.loss]` table of a bundle: weights of the parts."""

    fine: float = 1.0
    """Of the fine level; the coarse level weighs 1."""
    agreement: float = 0.2
    segmentation: float = 1.0
    smoothing: float = 0.05
    """Share of the target that is spread evenly over the classes (Szegedy et al., CVPR 2016)."""


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """The parts, each a scalar; `total` is what is minimised."""

    total: Tensor
    coarse: Tensor
    fine: Tensor
    agreement: Tensor
    segmentation: Tensor


def smoothed_nll(log_probabilities: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy of (B, K) log-probabilities with a smoothed one-hot (B,) target."""
    picked = log_probabilities.gather(1, target[:, None]).squeeze(1)  # (B,)
    return -((1 - smoothing) * picked + smoothing * log_probabilities.mean(dim=1)).mean()


def agreement_loss(fused: LogProbabilities, per_scale: Sequence[LogProbabilities]) -> Tensor:
    """Return the mean divergence of each scale's fine classes from the fused ones, which are not pulled.

    Self-distillation after Zhang et al., "Be Your Own Teacher", ICCV 2019. The levels of the hierarchy agree by
    construction; this makes the scales agree too.
    """
    target = fused.fine.detach()
    divergences = [functional.kl_div(scale.fine, target, reduction="batchmean", log_target=True) for scale in per_scale]
    return torch.stack(divergences).mean()


def hybrid_loss(output: NetworkOutput, batch: Batch, parents: Sequence[int], config: LossConfig) -> Losses:
    """Return all parts of the loss; views that may not teach the classifier count for the segmentation alone."""
    zero = output.segmentation.sum() * 0
    coarse = fine = agreement = zero
    if batch.is_classified.any():
        kept = batch.is_classified
        fused = _kept(hierarchical_log_probabilities(output.classes, parents), kept)
        scales = [_kept(hierarchical_log_probabilities(logits, parents), kept) for logits in output.per_scale]
        coarse = smoothed_nll(fused.coarse, batch.coarse[kept], config.smoothing)
        fine = smoothed_nll(fused.fine, batch.fine[kept], config.smoothing)
        agreement = agreement_loss(fused, scales)
    segmentation = zero
    if batch.has_mask.any():
        scores, lungs = output.segmentation[batch.has_mask], batch.lungs[batch.has_mask]
        dice_ce = DiceCELoss(to_onehot_y=True, softmax=True)
        segmentation = cast(Tensor, dice_ce(scores, lungs[:, None]))
    total = coarse + config.fine * fine + config.agreement * agreement + config.segmentation * segmentation
    return Losses(total, coarse, fine, agreement, segmentation)


def _kept(log_probabilities: LogProbabilities, kept: Tensor) -> LogProbabilities:
    return LogProbabilities(log_probabilities.coarse[kept], log_probabilities.fine[kept])
