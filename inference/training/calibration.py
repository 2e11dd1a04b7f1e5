"""A temperature per level (Guo et al., ICML 2017), fitted on groups that served neither training nor evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from inference.training.answers import Answers
from inference.training.data import Images

_RANGE = (0.05, 20.0)


def fit_temperatures(answers: Answers, images: Images, parents: Sequence[int]) -> tuple[float, float]:
    """Return the temperatures of the coarse and of the conditional fine scores."""
    coarse = fit_temperature([answers.coarse_logits], [images.coarse])
    logits, targets = [], []
    for parent in sorted(set(parents)):
        children = [child for child, its_parent in enumerate(parents) if its_parent == parent]
        inside = images.coarse == parent
        if len(children) > 1 and inside.any():
            logits.append(answers.fine_logits[inside][:, children])
            targets.append(np.array([children.index(fine) for fine in images.fine[inside]], dtype=np.int64))
    return coarse, fit_temperature(logits, targets)


def fit_temperature(logits: Sequence[NDArray[np.float64]], targets: Sequence[NDArray[np.int64]]) -> float:
    """Return the temperature with the least cross-entropy over blocks of (N, K) scores and their targets; 1 without."""
    if not logits:
        return 1.0

    def cross_entropy(log_temperature: float) -> float:
        losses = [
            -special.log_softmax(block / np.exp(log_temperature), axis=1)[np.arange(len(target)), target]
            for block, target in zip(logits, targets, strict=True)
        ]
        return float(np.concatenate(losses).mean())

    low, high = np.log(_RANGE)
    found = optimize.minimize_scalar(cross_entropy, bounds=(low, high), method="bounded")
    return float(np.exp(found.x))
