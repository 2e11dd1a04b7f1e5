"""Figures of merit on plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Claims = NDArray[np.bool_]
_LEAST_PROBABILITY = 1e-12


def accuracy(truth: Ints, answer: Ints) -> float:
    """Return the share of right answers."""
    return float((truth == answer).mean())


def balanced_accuracy(truth: Ints, answer: Ints) -> float:
    """Return the mean over the classes that occur of the share of right answers."""
    return float(np.mean([(answer[truth == label] == label).mean() for label in np.unique(truth)]))


def sensitivity(truth: Claims, answer: Claims) -> float:
    """Return the share of the positive that are answered positive."""
    return float(answer[truth].mean())


def specificity(truth: Claims, answer: Claims) -> float:
    """Return the share of the negative that are answered negative."""
    return float((~answer[~truth]).mean())


def auc(truth: Claims, score: Floats) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative, ties counting half.

    NaN where one of the classes does not occur (Hanley and McNeil, Radiology 1982).
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def roc(truth: Claims, score: Floats) -> tuple[Floats, Floats]:
    """Return the ROC curve: the shares of negatives and of positives at or above each threshold, from none to all."""
    order = np.argsort(-score, kind="stable")
    is_last = np.append(np.diff(score[order]) != 0, True)  # of those that tie
    hits, misses = np.cumsum(truth[order])[is_last], np.cumsum(~truth[order])[is_last]
    return np.append(0, misses) / max(int((~truth).sum()), 1), np.append(0, hits) / max(int(truth.sum()), 1)


def auc_within(truth: Claims, score: Floats, confounder: Floats, strata: int = 5) -> float:
    """Return the AUC among images alike in `confounder`: the mean over its quantile strata, weighed by their pairs.

    A score that only repeats the confounder comes down towards 0.5.
    """
    edges = np.quantile(confounder, np.linspace(0, 1, strata + 1)[1:-1])
    stratum = np.searchsorted(edges, confounder)
    pairs, areas = [], []
    for index in range(strata):
        inside = stratum == index
        count = int(truth[inside].sum()) * int((~truth[inside]).sum())
        if count:
            pairs.append(count)
            areas.append(auc(truth[inside], score[inside]))
    return float(np.average(areas, weights=pairs)) if pairs else float("nan")


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The images whose top probability lies in one bin."""

    index: int
    """Of all bins, the empty ones too; the least confident is 0."""
    count: int
    confidence: float
    """Mean top probability."""
    accuracy: float
    """Share of right answers."""


def reliability(probabilities: Floats, truth: Ints, bins: int = 15) -> list[ReliabilityBin]:
    """Return the bins, of equal width, that hold any of (N, K) probabilities; least confident first."""
    confidence, answer = probabilities.max(axis=1), probabilities.argmax(axis=1)
    binned = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [(int(index), binned == index) for index in np.unique(binned)]
    return [
        ReliabilityBin(index, int(own.sum()), float(confidence[own].mean()), float((answer[own] == truth[own]).mean()))
        for index, own in inside
    ]


def calibration_error(probabilities: Floats, truth: Ints, bins: int = 15) -> float:
    """Return the expected calibration error of (N, K) probabilities (Naeini et al., AAAI 2015).

    The mean over the images of the gap between top probability and share of right answers in their bin.
    """
    told = reliability(probabilities, truth, bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in told) / len(truth)


def cross_entropy(probabilities: Floats, truth: Ints) -> float:
    """Return the mean of -log p of the true class, of (N, K) probabilities; a p below 1e-12 counts as that."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], _LEAST_PROBABILITY)).mean())


def brier_score(probabilities: Floats, truth: Ints) -> float:
    """Return the mean squared distance of (N, K) probabilities from certainty of the true class (Brier, 1950): 0..2."""
    certain = np.eye(probabilities.shape[1])[truth]
    return float(((probabilities - certain) ** 2).sum(axis=1).mean())


def dice(truth: Claims, answer: Claims) -> float:
    """Return the overlap 2 |A and B| / (|A| + |B|); 1 where both are empty."""
    total = int(truth.sum()) + int(answer.sum())
    return 2 * int((truth & answer).sum()) / total if total else 1.0


def logistic_scores(known: Floats, truth: Claims, asked: Floats, steps: int = 25) -> Floats:
    """Return the probability that a logistic regression on one number gives to `asked`.

    Parameters
    ----------
    known, truth
        What it is fitted to, by Newton's method with a slight ridge.
    """
    center, spread = known.mean(), known.std() or 1.0
    design = np.stack([np.ones_like(known), (known - center) / spread], axis=1)  # (N, 2)
    weights = np.zeros(2)
    for _ in range(steps):
        probability = _sigmoid(design @ weights)
        gradient = design.T @ (probability - truth) + 1e-3 * weights
        curvature = design.T @ (design * (probability * (1 - probability))[:, None]) + 1e-3 * np.eye(2)
        weights -= np.linalg.solve(curvature, gradient)
    return _sigmoid(weights[0] + weights[1] * (asked - center) / spread)


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))
