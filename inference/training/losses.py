"""What training minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from monai.losses.dice import DiceCELoss, DiceFocalLoss, DiceLoss
from torch import Tensor
from torch.nn import functional

from inference.networks.experts import unevenness
from inference.networks.heads import LogProbabilities, hierarchical_log_probabilities, summed_to_parents
from inference.networks.hybridmednet import NetworkOutput
from inference.training.augmentation import Batch
from inference.training.contrastive import contrastive_loss
from inference.training.distillation import distillation_loss
from inference.training.task_weights import TaskWeights

SEGMENTATION_LOSSES: dict[str, type[DiceLoss | DiceCELoss | DiceFocalLoss]] = {
    "dice": DiceLoss,
    "dice-ce": DiceCELoss,
    "dice-focal": DiceFocalLoss,
}
PARTS = ("coarse", "fine", "agreement", "segmentation", "contrastive", "distillation", "consistency", "evenness")


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The `[training.loss]` table of a bundle: weights of the parts; what weighs 0 is not computed."""

    coarse: float = 1.0
    """Of the coarse level."""
    fine: float = 1.0
    """Of the fine level."""
    agreement: float = 0.2
    segmentation: float = 1.0
    smoothing: float = 0.05
    """Share of the target that is spread evenly over the classes (Szegedy et al., CVPR 2016)."""
    focal: float = 0.0
    """Exponent by which cases that are answered well count less (Lin et al., "Focal Loss", ICCV 2017); 0: all alike."""
    segmentation_loss: str = "dice-ce"
    """One of `SEGMENTATION_LOSSES`."""
    contrastive: float = 0.0
    """Of the supervised contrastive loss over the fine classes."""
    contrastive_temperature: float = 0.1
    contrastive_hardness: float = 0.0
    """How much more images of other classes count that look alike; 0: all alike."""
    distillation: float = 0.0
    """Of the divergence from the teacher that `[training]` names."""
    distillation_temperature: float = 2.0
    consistency: float = 0.0
    """Of the divergence between the levels of free heads (`[network]` hierarchy = "free"); others' levels agree."""
    evenness: float = 0.0
    """Of how unevenly the experts of the heads are used over a batch (`[network]` experts)."""
    learned_weights: bool = False
    """Whether the parts' weights are learnt, from those above on (`inference.training.task_weights`)."""

    def check(self) -> None:
        """Raise ValueError naming the field that does not fit."""
        if self.segmentation_loss not in SEGMENTATION_LOSSES:
            known = ", ".join(SEGMENTATION_LOSSES)
            raise ValueError(f"segmentation_loss: {self.segmentation_loss!r} is none of {known}")
        for name in ("contrastive_temperature", "distillation_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be positive")
        for name in (*PARTS, "focal"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be negative")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each of `PARTS` that is computed."""
        given = {name: getattr(self, name) for name in PARTS}
        return {name: weight for name, weight in given.items() if weight}


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """The parts, each a scalar; `total` is what is minimised."""

    total: Tensor
    coarse: Tensor
    fine: Tensor
    agreement: Tensor
    segmentation: Tensor
    contrastive: Tensor
    distillation: Tensor
    consistency: Tensor
    evenness: Tensor


def smoothed_nll(log_probabilities: Tensor, target: Tensor, smoothing: float, focal: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of (B, K) log-probabilities with a smoothed one-hot (B,) target.

    Parameters
    ----------
    focal
        Each case counts (1 - p) to this power, p being the probability of its class.
    """
    picked = log_probabilities.gather(1, target[:, None]).squeeze(1)  # (B,)
    of_each = -((1 - smoothing) * picked + smoothing * log_probabilities.mean(dim=1))
    if focal:
        # The bound keeps the derivative of the power finite where a case is answered with certainty.
        of_each = (1 - picked.exp()).clamp_min(torch.finfo(picked.dtype).eps) ** focal * of_each
    return of_each.mean()


def agreement_loss(fused: LogProbabilities, per_scale: Sequence[LogProbabilities]) -> Tensor:
    """Return the mean divergence of each scale's fine classes from the fused ones, which are not pulled.

    Self-distillation after Zhang et al., "Be Your Own Teacher", ICCV 2019. It is between scales; between the levels of
    free heads it is `consistency_loss`.
    """
    target = fused.fine.detach()
    divergences = [functional.kl_div(scale.fine, target, reduction="batchmean", log_target=True) for scale in per_scale]
    return torch.stack(divergences).mean()


def consistency_loss(coarse: Tensor, fine: Tensor, parents: Sequence[int]) -> Tensor:
    """Return the mean divergence KL(coarse || fine summed over each coarse class's children); both are pulled.

    0 where the levels agree; taken in logarithms, so that it stays finite where a probability vanishes.

    Parameters
    ----------
    coarse
        (B, coarse classes) log-probabilities.
    fine
        (B, fine classes) log-probabilities.
    parents
        Coarse class of each fine class.
    """
    return functional.kl_div(summed_to_parents(fine, parents), coarse, reduction="batchmean", log_target=True)


def hybrid_loss(  # noqa: PLR0913 -- the last two are switched by the table
    output: NetworkOutput,
    batch: Batch,
    parents: Sequence[int],
    config: LossConfig,
    *,
    teacher: NetworkOutput | None = None,
    task_weights: TaskWeights | None = None,
) -> Losses:
    """Return all parts of the loss; views that may not teach the classifier count for the segmentation alone.

    Parameters
    ----------
    teacher
        What another network says of the batch, for distillation.
    task_weights
        Learnt weights; they count beside the table's.
    """
    parts: dict[str, Tensor] = {}
    if batch.is_classified.any():
        parts |= _class_parts(output, batch, parents, config)
    if batch.has_mask.any():
        scores, lungs = output.segmentation[batch.has_mask], batch.lungs[batch.has_mask]
        compared = SEGMENTATION_LOSSES[config.segmentation_loss](to_onehot_y=True, softmax=True)
        parts["segmentation"] = cast(Tensor, compared(scores, lungs[:, None]))
    if teacher is not None and config.distillation:
        temperature = config.distillation_temperature
        parts["distillation"] = distillation_loss(output, teacher, batch.is_classified, parents, temperature)
    zero = output.segmentation.sum() * 0
    weighted = {name: weight * parts[name] for name, weight in config.weights.items() if name in parts}
    total = sum(weighted.values(), zero) if task_weights is None or not weighted else task_weights(weighted)
    return Losses(total, **{name: parts.get(name, zero) for name in PARTS})


def _class_parts(output: NetworkOutput, batch: Batch, parents: Sequence[int], config: LossConfig) -> dict[str, Tensor]:
    """Return the parts that views tell that may teach the classifier."""
    kept = batch.is_classified
    fused = _kept(hierarchical_log_probabilities(output.classes, parents), kept)
    scales = [_kept(hierarchical_log_probabilities(logits, parents), kept) for logits in output.per_scale]
    coarse = fused.coarse if output.coarse_alone is None else torch.log_softmax(output.coarse_alone[kept], dim=1)
    parts = {
        "coarse": smoothed_nll(coarse, batch.coarse[kept], config.smoothing, config.focal),
        "fine": smoothed_nll(fused.fine, batch.fine[kept], config.smoothing, config.focal),
        "agreement": agreement_loss(fused, scales),
    }
    if config.contrastive and output.described is not None:
        parts["contrastive"] = contrastive_loss(
            output.described[kept], batch.fine[kept], config.contrastive_temperature, config.contrastive_hardness
        )
    if config.consistency and output.coarse_alone is not None:
        parts["consistency"] = consistency_loss(coarse, fused.fine, parents)
    if config.evenness and output.mixtures:
        parts["evenness"] = torch.stack([unevenness(mixture[kept]) for mixture in output.mixtures]).mean()
    return parts


def _kept(log_probabilities: LogProbabilities, kept: Tensor) -> LogProbabilities:
    return LogProbabilities(log_probabilities.coarse[kept], log_probabilities.fine[kept])
