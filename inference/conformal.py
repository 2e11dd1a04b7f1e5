"""Sets of classes that hold the true one with a stated probability.

Vovk et al., "Algorithmic Learning in a Random World", 2005, and Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued
Classifiers With Bounded Error Levels", JASA 2019: a class is in the set if it is as probable as the true class was in
all but a share of the calibration cases of that class. So every class is covered, rare ones too, as long as the cases
are like those of the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def fit_bounds(probabilities: NDArray[np.float64], truth: NDArray[np.int64], coverage: float) -> NDArray[np.float64]:
    """Return for each class the least probability with which it is in the set.

    Parameters
    ----------
    probabilities
        (N, K) of cases that served neither training nor evaluation.
    truth
        (N,) indices of the true classes.
    coverage
        Share of the cases whose set is to hold the true class, 0..1.

    Returns
    -------
    (K,) bounds; 0, which admits the class always, where there are too few cases to tell.
    """
    bounds = np.zeros(probabilities.shape[1])
    for label in range(probabilities.shape[1]):
        own = np.sort(probabilities[truth == label, label])
        # With n cases the k-th smallest is exceeded by a new one with probability 1 - k / (n + 1) at least.
        rank = math.floor((len(own) + 1) * (1 - coverage))
        bounds[label] = own[rank - 1] if rank else 0.0
    return bounds


def rounded_down(bounds: NDArray[np.float64], digits: int) -> list[float]:
    """Return (K,) bounds as they are written down: never greater, so that what is covered stays covered."""
    scale = 10**digits
    return [math.floor(bound * scale) / scale for bound in bounds.tolist()]


def label_set(probabilities: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (N, K): which classes are in the set of each of (N, K) cases; the most probable one is in any case."""
    inside: NDArray[np.bool_] = probabilities >= bounds
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return inside


def bounds_of(table: Mapping[str, float], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return (K,) bounds in the order of the class names; 0 for a class that the table does not tell."""
    return np.array([table.get(name, 0.0) for name in names])
