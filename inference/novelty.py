"""Whether an image is like those that the network has learnt from.

Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS
2018: the Mahalanobis distance of the features to the nearest class of the training images, all classes having one
covariance. The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004, with a fixed share):
there are hardly more images than features would need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from inference.errors import BundleError, NotEvaluableError

_SHRINKAGE = 0.1
_FIELDS = ("means", "whitening")


@dataclass(frozen=True, slots=True, eq=False)
class KnownFeatures:
    """What the features of the training images are like.

    Parameters
    ----------
    means
        (classes, D) float32.
    whitening
        (D, D) float32: features times it have the covariance 1 within each class.
    """

    means: NDArray[np.float32]
    whitening: NDArray[np.float32]

    @classmethod
    def learn(cls, features: NDArray[np.float64], classes: NDArray[np.int64]) -> KnownFeatures:
        """Take the mean of each class and the covariance within the classes of (N, D) features."""
        present = np.unique(classes)
        means = np.stack([features[classes == each].mean(axis=0) for each in present])  # (classes, D)
        apart = features - means[np.searchsorted(present, classes)]
        covariance = apart.T @ apart / len(apart)  # (D, D)
        width = covariance.shape[0]
        even = np.trace(covariance) / width
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * even * np.eye(width)
        values, vectors = np.linalg.eigh(shrunk)
        return cls(means.astype(np.float32), (vectors / np.sqrt(values)).astype(np.float32))

    def distances(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) distances of (N, D) features to the nearest class: about 1 for what was learnt from."""
        placed = features @ self.whitening.astype(np.float64)  # (N, D)
        centres = self.means.astype(np.float64) @ self.whitening.astype(np.float64)  # (classes, D)
        squares = ((placed[:, None] - centres[None]) ** 2).mean(axis=2)  # (N, classes)
        nearest: NDArray[np.float64] = np.sqrt(squares.min(axis=1))
        return nearest

    def save(self, file: Path) -> None:
        """Write them as safetensors."""
        # Not `save_file`: it makes files that their owner alone can read, and others serve with the bundle.
        file.write_bytes(save({"means": self.means, "whitening": self.whitening}))

    @classmethod
    def load(cls, file: Path, width: int) -> KnownFeatures:
        """Read them; BundleError where they are not those of a network with `width` features."""
        try:
            stored = load_file(file)
            known = cls(*(stored[name] for name in _FIELDS))
        except (SafetensorError, OSError, KeyError) as error:
            raise BundleError(f"{file}: cannot be read: {error}") from error
        if known.whitening.shape != (width, width) or known.means.shape[1:] != (width,):
            raise BundleError(f"{file}: is not of a network with {width} features")
        return known


def check_known(known: KnownFeatures, features: NDArray[np.float64], limit: float) -> None:
    """Raise NotEvaluableError where (1, D) features lie further than `limit` from all that was learnt from."""
    (distance,) = known.distances(features)
    if not distance <= limit:
        raise NotEvaluableError(
            "image.unlike-training",
            f"The image is unlike those that the model learnt from: distance {distance:.2f}, at most {limit:.2f}.",
        )


def fit_limit(distances: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """Return the limit that lets the share `share` of these distances pass."""
    return float(np.quantile(np.asarray(distances), share, method="higher"))
