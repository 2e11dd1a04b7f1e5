"""A volume bundle by its cases: overlap, volumes, and intervals over cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.training.scores import dice
from inference.training.volume_data import VolumeCase

_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)
_PER_CENT = 100.0


@dataclass(frozen=True, slots=True)
class CaseScores:
    """How well one case was segmented by a network that had not seen it."""

    name: str
    group: str
    fold: int
    dice: tuple[float, ...]
    """By segment."""
    volume_error_percent: tuple[float, ...]
    """By segment; above 0 where the network finds more than the truth; NaN where the truth is empty."""


def score_case(case: VolumeCase, found: NDArray[np.uint8], segments: int, fold: int) -> CaseScores:
    """Compare found segment numbers (Z, Y, X) with a case's labels."""
    overlaps, errors = [], []
    for number in range(1, segments + 1):
        truth, answer = case.labels == number, found == number
        overlaps.append(dice(truth, answer))
        voxels = int(truth.sum())
        errors.append(_PER_CENT * (int(answer.sum()) / voxels - 1) if voxels else float("nan"))
    return CaseScores(case.name, case.group, fold, tuple(overlaps), tuple(errors))


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """The figures of a cross-validation."""

    weights_sha256: str
    """Of the weights that ship, which were trained like the folds' on all cases."""
    segments: tuple[str, ...]
    scores: tuple[CaseScores, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain values: of each segment the mean over cases with its 95 % interval."""
        scores = self.scores
        dice_of, errors_of, folds_of = {}, {}, {}
        for index, name in enumerate(self.segments):
            dice_of[name] = _with_interval(np.array([score.dice[index] for score in scores]), digits=4)
            errors = np.array([score.volume_error_percent[index] for score in scores])
            known = errors[~np.isnan(errors)]
            errors_of[name] = {**_with_interval(np.abs(known), digits=2), "signed": round(float(known.mean()), 2)}
            folds_of[name] = _by_fold(scores, index)
        return {
            "weights_sha256": self.weights_sha256,
            "cases": len(scores),
            "folds": len({score.fold for score in scores}),
            "dice": dice_of,
            "absolute_volume_error_percent": errors_of,
            "dice_by_held_out": folds_of,
        }


def _with_interval(values: NDArray[np.float64], digits: int) -> dict[str, object]:
    """Return mean and median, and the mean's 95 % interval by the bootstrap over cases (Efron, 1979)."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, _INTERVAL)
    return {
        "mean": round(float(values.mean()), digits),
        "low": round(float(low), digits),
        "high": round(float(high), digits),
        "median": round(float(np.median(values)), digits),
    }


def _by_fold(scores: Sequence[CaseScores], index: int) -> Mapping[str, float]:
    held: dict[int, list[CaseScores]] = {}
    for score in scores:
        held.setdefault(score.fold, []).append(score)
    many_groups = len({score.group for score in scores}) > len(held)
    return {
        (f"fold-{fold}" if many_groups else cases[0].group.lower()): round(
            float(np.mean([score.dice[index] for score in cases])), 4
        )
        for fold, cases in sorted(held.items())
    }
