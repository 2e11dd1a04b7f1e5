"""Figures of merit on plain arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Claims = NDArray[np.bool_]


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


def calibration_error(probabilities: Floats, truth: Ints, bins: int = 15) -> float:
    """Return the expected calibration error of (N, K) probabilities (Naeini et al., AAAI 2015).

    In equal-width bins of the top probability: the mean gap between it and the share of right answers.
    """
    confidence, answer = probabilities.max(axis=1), probabilities.argmax(axis=1)
    binned = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for index in np.unique(binned):
        inside = binned == index
        gap = abs(float((answer[inside] == truth[inside]).mean()) - float(confidence[inside].mean()))
        error += gap * float(inside.mean())
    return error


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
