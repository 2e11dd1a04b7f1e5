"""Which images an epoch shows: each once, or rare classes as often as common ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shares(classes: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Return (N,) probabilities of being shown, which sum to 1.

    Parameters
    ----------
    classes
        (N,) class of each image.
    balance
        0: all images alike; 1: all classes alike; between, a class of n images has the share n ** (1 - balance)
        (Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining", ECCV 2018: 0.5).
    """
    counts = np.bincount(classes)
    weights: NDArray[np.float64] = counts[classes].astype(np.float64) ** -balance
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def epoch_order(classes: NDArray[np.int64], balance: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the N indices of an epoch: a shuffle where `balance` is 0, else drawn with replacement."""
    count = len(classes)
    if not balance:
        return generator.permutation(count)
    drawn: NDArray[np.int64] = generator.choice(count, size=count, p=shares(classes, balance))
    return drawn
