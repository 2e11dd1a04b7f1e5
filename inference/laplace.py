"""Class probabilities over all weights of the last layer that the training images allow, not over one set of them.

MacKay, "A Practical Bayesian Framework for Backpropagation Networks", Neural Computation 1992; Kristiadi, Hein and
Hennig, "Being Bayesian, Even Just a Bit, Fixes Overconfidence in ReLU Networks", ICML 2020; Daxberger et al., "Laplace
Redux", NeurIPS 2021. The weights W (K, D + 1) of a linear head, its bias among them, are Gaussian around the trained
ones; their precision is the generalised Gauss-Newton matrix of the training images and a prior precision d times the
identity. Every softmax, that is every set of siblings, has a posterior of its own: given the hierarchy they are
independent. With f the features and 1, and p the probabilities of the siblings,

    sum_n (diag(p_n) - p_n p_n^T) (x) f_n f_n^T  ~  G (x) A,
    A = sum_n t_n f_n f_n^T,  t_n = tr(diag(p_n) - p_n p_n^T),  G = sum_n (diag(p_n) - p_n p_n^T) / sum_n t_n,

a Kronecker product that is exact for two siblings, whose curvatures are all multiples of one matrix. With the
eigenvectors u_i and eigenvalues a_i of A, v_j and g_j of G, the scores of an image are Gaussian along each v_j:

    var_j = sum_i (u_i^T f)^2 / (a_i g_j + d).

Only those u_i are kept along which the training images tell something; along all others var_j is that of the prior.
The mean of the softmax over the scores is taken at fixed points, so that it never changes from run to run (MacKay's
probit approximation has no covariances, and does not part the uncertainty).

Depeweg et al., "Decomposition of Uncertainty in Bayesian Deep Learning", ICML 2018: the entropy of the mean is the
mean entropy (aleatoric: what the images themselves leave open) and the mutual information of class and weights
(epistemic: what more training images could tell).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy import special
from torch.quasirandom import SobolEngine

from inference.bundle import Bundle
from inference.errors import BundleError
from inference.pinned import Pinned, read_pinned

Floats = NDArray[np.float64]

_POINTS = 64
"""Of the mean over the scores; a power of two, as Sobol points want."""
_FIELDS = ("vectors", "curvatures", "directions", "strengths", "prior")


@dataclass(frozen=True, slots=True, eq=False)
class Siblings:
    """What is known of the weights that score classes of which one is true.

    Parameters
    ----------
    vectors
        (R, D + 1) float32: eigenvectors u_i of A, in rows.
    curvatures
        (R,) float32: their eigenvalues a_i.
    directions
        (K, J) float32: eigenvectors v_j of G, in columns; along what is missing, all scores alike, nothing depends.
    strengths
        (J,) float32: their eigenvalues g_j.
    prior
        (1,) float32: the prior precision d.
    """

    vectors: NDArray[np.float32]
    curvatures: NDArray[np.float32]
    directions: NDArray[np.float32]
    strengths: NDArray[np.float32]
    prior: NDArray[np.float32]

    def spread(self, features: Floats) -> Floats:
        """Return (B, J) standard deviations of the scores of (B, D) features along the directions."""
        prior = float(self.prior[0])
        shown = np.concatenate([features, np.ones((len(features), 1))], axis=1)  # (B, D + 1)
        along = (shown @ self.vectors.T.astype(np.float64)) ** 2  # (B, R)
        learnt = np.outer(self.curvatures, self.strengths).astype(np.float64)  # (R, J)
        told = along @ (1 / prior - 1 / (learnt + prior))  # (B, J): by how much the images narrow the prior
        variance = (shown**2).sum(axis=1, keepdims=True) / prior - told
        deviation: Floats = np.sqrt(np.maximum(variance, 0))
        return deviation

    def suits(self, width: int, classes: int) -> bool:
        """Say whether they are numbers of a head that scores so many classes by so many features."""
        rank, ways = len(self.curvatures), len(self.strengths)
        expected = ((rank, width + 1), (rank,), (classes, ways), (ways,), (1,))
        arrays = [getattr(self, name) for name in _FIELDS]
        if tuple(array.shape for array in arrays) != expected or not ways:
            return False
        are_numbers = all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
        are_positive = (self.curvatures >= 0).all() and (self.strengths >= 0).all() and self.prior[0] > 0
        return are_numbers and bool(are_positive)

    def drawn(self, scores: Floats, features: Floats, points: Floats) -> Floats:
        """Return (S, B, K) scores at (S, J) standard normal points, from the (B, K) trained ones."""
        moved = points[:, None] * self.spread(features)  # (S, B, J)
        return scores + moved @ self.directions.T.astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class LastLayer:
    """The posterior of the weights of both heads.

    Parameters
    ----------
    coarse
        Of the coarse head.
    fine
        Of the children of each coarse class that has more than one, by its index.
    """

    coarse: Siblings
    fine: Mapping[int, Siblings]

    def to_bytes(self) -> bytes:
        """Return it as safetensors."""
        return save({f"{name}.{field}": getattr(each, field) for name, each in self.named() for field in _FIELDS})

    def named(self) -> Iterator[tuple[str, Siblings]]:
        """Yield each set of siblings by its name in the file."""
        yield "coarse", self.coarse
        for parent, siblings in self.fine.items():
            yield f"fine.{parent}", siblings

    @classmethod
    def load(cls, pinned: Pinned, width: int, parents: Sequence[int]) -> LastLayer:
        """Read it; BundleError where it was changed or is not that of heads on `width` features with this hierarchy."""
        file = pinned.path
        try:
            stored = load(read_pinned(*pinned))
            coarse = Siblings(*(stored[f"coarse.{field}"] for field in _FIELDS))
            fine = {
                parent: Siblings(*(stored[f"fine.{parent}.{field}"] for field in _FIELDS))
                for parent in families(parents)
            }
        except (SafetensorError, KeyError) as error:
            raise BundleError(f"{file}: cannot be read: {error}") from error
        counts = [max(parents) + 1, *(len(own) for own in families(parents).values())]
        for count, each in zip(counts, (coarse, *fine.values()), strict=True):
            if not each.suits(width, count):
                raise BundleError(f"{file}: is not of a network with {width} features and these classes")
        return cls(coarse, fine)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Scores at each point of the posterior, before the temperature."""

    coarse: Floats
    """(S, B, coarse classes)."""
    fine: Mapping[int, Floats]
    """(S, B, children) of each coarse class that has more than one, by its index."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictive:
    """What a level says."""

    probabilities: Floats
    """(B, K): the mean over the posterior; joint below the first level."""
    epistemic: Floats | None
    """(B,) mutual information of class and weights over the greatest entropy, 0..1; None without a posterior."""


def load_last_layer(bundle: Bundle, width: int) -> LastLayer | None:
    """Return what is known of the weights of a bundle's heads on `width` features, where the bundle tells it."""
    if bundle.laplace is None:
        return None
    return LastLayer.load(bundle.laplace, width, bundle.parents)


def families(parents: Sequence[int]) -> dict[int, list[int]]:
    """Return the children of each coarse class that has more than one."""
    children = {parent: [own for own, its in enumerate(parents) if its == parent] for parent in sorted(set(parents))}
    return {parent: own for parent, own in children.items() if len(own) > 1}


def draw(
    coarse: Floats, fine: Floats, parents: Sequence[int], posterior: LastLayer | None, features: Floats | None
) -> Drawn:
    """Return scores at the points of the posterior; without one the trained scores, as the only point.

    Parameters
    ----------
    coarse, fine
        (B, classes) scores of the heads.
    features
        (B, D): what the heads saw; needed where there is a posterior.
    """
    groups = families(parents)
    if posterior is None or features is None:
        return Drawn(coarse[None], {parent: fine[None][:, :, own] for parent, own in groups.items()})
    widths = [posterior.coarse.directions.shape[1], *(posterior.fine[each].directions.shape[1] for each in groups)]
    ends = np.cumsum(widths)
    points = np.split(_points(int(ends[-1])), ends[:-1], axis=1)
    return Drawn(
        posterior.coarse.drawn(coarse, features, points[0]),
        {
            parent: posterior.fine[parent].drawn(fine[:, own], features, at)
            for (parent, own), at in zip(groups.items(), points[1:], strict=True)
        },
    )


def predict(drawn: Drawn, parents: Sequence[int], temperatures: Sequence[float]) -> tuple[Predictive, Predictive]:
    """Return what the coarse and the fine level say: P(fine) = P(coarse) * P(fine | coarse) at every point, then means.

    Parameters
    ----------
    temperatures
        Divisors of the coarse and the conditional fine scores at every point (Guo et al., ICML 2017).
    """
    coarse = special.softmax(drawn.coarse / temperatures[0], axis=2)  # (S, B, C)
    fine = coarse[:, :, list(parents)]  # (S, B, F)
    for parent, own in families(parents).items():
        fine[:, :, own] *= special.softmax(drawn.fine[parent] / temperatures[1], axis=2)
    return _mean(coarse), _mean(fine)


def _mean(drawn: Floats) -> Predictive:
    """Return the mean of (S, B, K) probabilities, and how far they disagree."""
    mean = drawn.mean(axis=0)  # (B, K)
    if len(drawn) == 1:
        return Predictive(mean, None)
    within = special.entr(drawn).sum(axis=2).mean(axis=0)  # (B,)
    apart = special.entr(mean).sum(axis=1) - within
    return Predictive(mean, np.clip(apart / np.log(mean.shape[1]), 0, 1))


@cache
def _points(dimensions: int) -> Floats:
    """Return (S, dimensions) points, spread evenly over the standard normal distribution (Sobol, 1967)."""
    engine = SobolEngine(dimensions)  # type: ignore[no-untyped-call]  # torch does not annotate it
    even = engine.draw(_POINTS, dtype=torch.float64).numpy()  # (S, dimensions) in [0, 1)
    points: Floats = special.ndtri(even + 0.5 / _POINTS)
    return points
