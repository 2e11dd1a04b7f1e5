"""Classes tied by a hierarchy: P(fine) = P(coarse) * P(fine | coarse).

Yan et al., "HD-CNN", ICCV 2015, and Redmon and Farhadi, "YOLO9000", CVPR 2017 (section 4): a softmax over the siblings
under each parent, multiplied along the way down. The fine probabilities under a parent sum to the parent's. Beside
it, to compare with: one softmax over the fine classes, alone or with a free one over the coarse classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.networks.experts import ExpertHead


class ClassLogits(NamedTuple):
    """Scores before the softmax."""

    coarse: Tensor
    """(B, coarse classes)."""
    fine: Tensor
    """(B, fine classes), comparable among siblings only."""


class HeadsOutput(NamedTuple):
    """What heads answer, and what training alone reads."""

    classes: ClassLogits
    coarse_alone: Tensor | None
    """(B, coarse classes) of a softmax of its own, free of the fine one; None where there is none."""
    mixtures: tuple[Tensor, ...]
    """(B, experts) of each head of several experts: the say of each of them; sums to 1."""


class LogProbabilities(NamedTuple):
    """Logarithms of probabilities that agree between the levels."""

    coarse: Tensor
    """(B, coarse classes); exp sums to 1."""
    fine: Tensor
    """(B, fine classes); exp sums to 1, and over the children of a parent to the parent's probability."""


def hierarchical_log_probabilities(
    logits: ClassLogits, parents: Sequence[int], temperatures: tuple[float, float] = (1.0, 1.0)
) -> LogProbabilities:
    """Turn scores into log-probabilities of both levels.

    Parameters
    ----------
    logits
        Scores of the heads.
    parents
        Coarse class of each fine class.
    temperatures
        Divisors of the coarse and the conditional fine scores (Guo et al., "On Calibration of Modern Neural Networks",
        ICML 2017); 1 leaves them as trained.
    """
    coarse = torch.log_softmax(logits.coarse / temperatures[0], dim=1)  # (B, C)
    scores = logits.fine / temperatures[1]  # (B, F)
    fine = torch.empty_like(scores)
    for parent in sorted(set(parents)):
        children = [child for child, its_parent in enumerate(parents) if its_parent == parent]
        conditional = torch.log_softmax(scores[:, children], dim=1)  # (B, children)
        fine[:, children] = coarse[:, parent, None] + conditional
    return LogProbabilities(coarse, fine)


class HierarchicalHeads(nn.Module):
    """Coarse and fine scores from the pooled pyramid levels.

    Parameters
    ----------
    features
        Width of what `pooled` gives: twice the levels' widths together.
    coarse, fine
        Number of classes of each level of the hierarchy.
    dropout
        Share of the pooled features that is dropped in training.
    experts
        Experts of each head; 0: one linear layer.
    """

    def __init__(self, features: int, coarse: int, fine: int, dropout: float = 0.2, experts: int = 0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.coarse = _head(features, coarse, experts)
        self.fine = _head(features, fine, experts)

    def forward(self, levels: Sequence[Tensor]) -> HeadsOutput:
        """Score (B, C, Y_i, X_i) levels."""
        features = self.drop(pooled(levels))  # (B, 2 * levels * C)
        coarse, of_coarse = _scored(self.coarse, features)
        fine, of_fine = _scored(self.fine, features)
        return HeadsOutput(ClassLogits(coarse, fine), None, (*of_coarse, *of_fine))


class FlatHead(nn.Module):
    """One softmax over the fine classes, which knows nothing of the hierarchy: what the hierarchy is compared with.

    A coarse score is the logarithm of the sum of its children's exponentials, so that the probabilities of both levels
    are those of that one softmax.

    Parameters
    ----------
    features
        As of `HierarchicalHeads`.
    parents
        Coarse class of each fine class.
    dropout, experts
        As of `HierarchicalHeads`.
    """

    def __init__(self, features: int, parents: Sequence[int], dropout: float = 0.2, experts: int = 0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fine = _head(features, len(parents), experts)
        self.parents = tuple(parents)

    def forward(self, levels: Sequence[Tensor]) -> HeadsOutput:
        """Score (B, C, Y_i, X_i) levels."""
        fine, mixtures = _scored(self.fine, self.drop(pooled(levels)))  # (B, fine)
        return HeadsOutput(ClassLogits(summed_to_parents(fine, self.parents), fine), None, mixtures)


class FreeHeads(nn.Module):
    """A softmax over the coarse classes and one over the fine classes, which may contradict each other.

    What they answer is the fine softmax, and at the coarse level its sums, as a `FlatHead` does: the probabilities of
    both levels agree, and calibration, label sets and reports take them as they take others. The coarse softmax is for
    training alone: it learns the coarse classes, and a consistency loss draws both together.

    Parameters
    ----------
    features, parents, dropout, experts
        As of `FlatHead`.
    """

    def __init__(self, features: int, parents: Sequence[int], dropout: float = 0.2, experts: int = 0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.coarse = _head(features, max(parents) + 1, experts)
        self.fine = _head(features, len(parents), experts)
        self.parents = tuple(parents)

    def forward(self, levels: Sequence[Tensor]) -> HeadsOutput:
        """Score (B, C, Y_i, X_i) levels."""
        features = self.drop(pooled(levels))  # (B, 2 * levels * C)
        alone, of_coarse = _scored(self.coarse, features)
        fine, of_fine = _scored(self.fine, features)
        classes = ClassLogits(summed_to_parents(fine, self.parents), fine)
        return HeadsOutput(classes, alone, (*of_coarse, *of_fine))


def summed_to_parents(fine: Tensor, parents: Sequence[int]) -> Tensor:
    """Return (B, coarse classes) logarithms of the sums of exponentials of (B, fine classes) over each one's children.

    Of log-probabilities they are those of the coarse level.
    """
    sums = [
        fine[:, [child for child, its_parent in enumerate(parents) if its_parent == parent]].logsumexp(dim=1)
        for parent in range(max(parents) + 1)
    ]
    return torch.stack(sums, dim=1)


def _head(features: int, classes: int, experts: int) -> nn.Module:
    return ExpertHead(features, classes, experts) if experts else nn.Linear(features, classes)


def _scored(head: nn.Module, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return a head's (B, classes) scores, and its (B, experts) mixture where it has one."""
    if isinstance(head, ExpertHead):
        scores, mixture = head.weighed(features)
        return scores, (mixture,)
    return head(features), ()


def pooled(levels: Sequence[Tensor]) -> Tensor:
    """Return (B, 2 * levels * C): the means, then the maxima, of (B, C, Y_i, X_i) levels over their places."""
    means = [level.mean(dim=(2, 3)) for level in levels]
    peaks = [level.amax(dim=(2, 3)) for level in levels]
    return torch.cat(means + peaks, dim=1)
