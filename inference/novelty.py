"""Whether an image is like those that the network has learnt from, and the right way up.

Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS
2018: the Mahalanobis distance of the features to the nearest class of the training images, all classes having one
covariance. The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004, with a fixed share):
there are hardly more images than features would need.

An image that stands on its head has lungs, too, and its features are often within reach. So the classes are described
turned over as well, with the same covariance: an image nearer to one of those is refused (Fisher's linear
discriminant). A mirror image, left for right, is no matter of this guard: a heart on the right may be the patient's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from inference.errors import BundleError, NotEvaluableError
from inference.pinned import Pinned, read_pinned

_SHRINKAGE = 0.1
_FIELDS = ("means", "whitening")
_TURNED = "turned"


@dataclass(frozen=True, slots=True, eq=False)
class KnownFeatures:
    """What the features of the training images are like.

    Parameters
    ----------
    means
        (classes, D) float32.
    whitening
        (D, D) float32: features times it have the covariance 1 within each class.
    turned
        (M, D) float32: as `means`, of images turned over; none where that was not learnt.
    """

    means: NDArray[np.float32]
    whitening: NDArray[np.float32]
    turned: NDArray[np.float32]

    @classmethod
    def learn(
        cls,
        features: NDArray[np.float64],
        classes: NDArray[np.int64],
        turned: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]] = (),
    ) -> KnownFeatures:
        """Take the mean of each class and the covariance within the classes of (N, D) features.

        Parameters
        ----------
        turned
            Features and classes of images turned over, for each way of turning them.
        """
        present = np.unique(classes)
        means = _means(features, classes)  # (classes, D)
        apart = features - means[np.searchsorted(present, classes)]
        covariance = apart.T @ apart / len(apart)  # (D, D)
        width = covariance.shape[0]
        even = np.trace(covariance) / width
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * even * np.eye(width)
        values, vectors = np.linalg.eigh(shrunk)
        over = np.concatenate([np.zeros((0, width)), *(_means(*each) for each in turned)])  # (M, D)
        return cls(means.astype(np.float32), (vectors / np.sqrt(values)).astype(np.float32), over.astype(np.float32))

    def distances(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) distances of (N, D) features to the nearest class: about 1 for what was learnt from."""
        return self._nearest(features, self.means)

    def distances_turned(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) distances of (N, D) features to the nearest class turned over; infinite where none is known."""
        return self._nearest(features, self.turned)

    def _nearest(self, features: NDArray[np.float64], means: NDArray[np.float32]) -> NDArray[np.float64]:
        whitening = self.whitening.astype(np.float64)
        placed, centres = features @ whitening, means.astype(np.float64) @ whitening  # (N, D), (M, D)
        squares = ((placed[:, None] - centres[None]) ** 2).mean(axis=2)  # (N, M)
        nearest: NDArray[np.float64] = np.sqrt(squares.min(axis=1, initial=np.inf))
        return nearest

    def to_bytes(self) -> bytes:
        """Return them as safetensors."""
        return save({name: getattr(self, name) for name in (*_FIELDS, _TURNED)})

    @classmethod
    def load(cls, pinned: Pinned, width: int) -> KnownFeatures:
        """Read them; BundleError where they are not those of a network with `width` features, or were changed."""
        file = pinned.path
        try:
            stored = load(read_pinned(*pinned))
            means, whitening = (stored[name] for name in _FIELDS)
        except (SafetensorError, KeyError) as error:
            raise BundleError(f"{file}: cannot be read: {error}") from error
        turned = stored.get(_TURNED, np.zeros((0, width), dtype=np.float32))
        if whitening.shape != (width, width) or {means.shape[1:], turned.shape[1:]} != {(width,)}:
            raise BundleError(f"{file}: is not of a network with {width} features")
        if not all(np.isfinite(array).all() for array in (means, whitening, turned)):
            raise BundleError(f"{file}: holds what is no number")
        return cls(means, whitening, turned)


def _means(features: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (classes, D): the mean of each class that is there."""
    return np.stack([features[classes == each].mean(axis=0) for each in np.unique(classes)])


def check_known(known: KnownFeatures, features: NDArray[np.float64], limit: float) -> None:
    """Raise NotEvaluableError where (1, D) features are unlike all that was learnt from, or upside down.

    Parameters
    ----------
    limit
        Distance up to which features are like those of the training images.
    """
    (distance,), (turned,) = known.distances(features), known.distances_turned(features)
    if turned < distance and turned <= limit:
        raise NotEvaluableError(
            "image.upside-down",
            f"The image seems to stand on its head: distance {turned:.2f} to training images turned over, "
            f"{distance:.2f} to those the right way up.",
        )
    if not distance <= limit:
        raise NotEvaluableError(
            "image.unlike-training",
            f"The image is unlike those that the model learnt from: distance {distance:.2f}, at most {limit:.2f}.",
        )


def fit_limit(distances: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """Return the limit that lets the share `share` of these distances pass."""
    return float(np.quantile(np.asarray(distances), share, method="higher"))
