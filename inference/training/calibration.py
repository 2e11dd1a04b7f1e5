"""What is fitted on groups that served neither training nor evaluation.

A temperature per level (Guo et al., ICML 2017), the bounds of label sets (`inference.conformal`), and how far an image
may be from what was learnt from (`inference.novelty`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from inference.bundle import Bundle
from inference.conformal import fit_bounds
from inference.novelty import KnownFeatures, fit_limit
from inference.training.answers import Answers
from inference.training.data import Images

COVERAGE = 0.9
"""Share of the cases of each class whose label set is to hold the true one."""
KNOWN_SHARE = 0.995
"""Share of the calibration images that are to count as like those that were learnt from."""
_KNOWN_FILE = "novelty.safetensors"
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


def calibration_table(
    bundle: Bundle, images: Images, answers: Answers, temperatures: tuple[float, float]
) -> Mapping[str, object]:
    """Return the `[calibration]` table of a bundle with these temperatures."""
    levels = zip(bundle.levels, answers.probabilities(bundle.parents, temperatures), strict=True)
    truths = (images.coarse, images.fine)
    bounds = {
        level.name: dict(zip(level.class_names, np.round(fit_bounds(values, truth, COVERAGE), 5).tolist(), strict=True))
        for (level, values), truth in zip(levels, truths, strict=True)
    }
    return {
        "images": len(images),
        "groups": len(set(images.groups)),
        "coverage": COVERAGE,
        "temperature": {level.name: round(value, 4) for level, value in zip(bundle.levels, temperatures, strict=True)},
        "bounds": bounds,
    }


def learn_known(images: Images, answers: Answers) -> KnownFeatures:
    """Return what the features of the training images are like, by fine class."""
    return KnownFeatures.learn(answers.features, images.fine)


def novelty_table(bundle_dir: Path, known: KnownFeatures, answers: Answers) -> Mapping[str, object]:
    """Write the known features beside bundle.toml; return the `[novelty]` table with the limit of these answers."""
    file = bundle_dir / _KNOWN_FILE
    known.save(file)
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "limit": round(fit_limit(known.distances(answers.features), KNOWN_SHARE), 4),
        "known_share": KNOWN_SHARE,
    }
