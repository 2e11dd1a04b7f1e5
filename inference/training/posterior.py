"""The Laplace posterior of the last layer, from the features of the training images (`inference.laplace`).

The prior precision is the one under which the training labels are most probable: the evidence of MacKay (1992), of
which only the terms that the precision changes are needed. With P weights w along the directions that matter,

    log p(labels | d) = const + (P log d - log det(G (x) A + d I) - d w^T w) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special
from torch import nn

from inference.laplace import Floats, LastLayer, Siblings, families
from inference.networks.heads import HierarchicalHeads
from inference.networks.hybridmednet import HybridMedNet
from inference.training.answers import Answers
from inference.training.data import Images

_LEAST_STRENGTH = 1e-6
"""Of the strongest direction: below it is what all scores have in common, on which nothing depends."""
_LEAST_NARROWING = 0.02
"""An eigenvector along which the images narrow the prior's variance by less is left out."""
_LEAST_TOLD = 1e-9
"""Of all images together: below it is the rounding of probabilities of 0 and 1."""
_RANGE = (1e-3, 1e6)


def learn_last_layer(
    network: HybridMedNet, images: Images, answers: Answers, parents: Sequence[int]
) -> LastLayer | None:
    """Return the posterior of both heads given the training images.

    None where they are not two linear ones, or where no image tells anything of one.

    Parameters
    ----------
    images, answers
        The training part, as the network answers it.
    """
    heads = network.heads
    if not (
        isinstance(heads, HierarchicalHeads)
        and isinstance(heads.coarse, nn.Linear)
        and isinstance(heads.fine, nn.Linear)
    ):
        return None
    coarse, fine = _weights(heads.coarse), _weights(heads.fine)
    shown = np.concatenate([answers.scores.features, np.ones((len(images), 1))], axis=1)  # (N, D + 1)
    below: dict[int, Siblings] = {}
    for parent, own in families(parents).items():
        inside = images.coarse == parent
        if not inside.any():
            return None
        learnt = learn_siblings(fine[own], answers.scores.fine[inside][:, own], shown[inside])
        if learnt is None:
            return None
        below[parent] = learnt
    above = learn_siblings(coarse, answers.scores.coarse, shown)
    return None if above is None else LastLayer(above, below)


def learn_siblings(weights: Floats, scores: Floats, shown: Floats, prior: float | None = None) -> Siblings | None:
    """Return the posterior of the weights of one softmax; None where it is certain of every image.

    Then no image tells how far the weights may be off.

    Parameters
    ----------
    weights
        (K, D + 1) as trained, the bias last.
    scores
        (N, K) of the images that tell of these classes.
    shown
        (N, D + 1): their features and 1.
    prior
        The prior precision; found by the evidence without it.
    """
    probabilities = special.softmax(scores, axis=1)  # (N, K)
    curvature = np.diag(probabilities.sum(axis=0)) - probabilities.T @ probabilities  # (K, K)
    shares = 1 - (probabilities**2).sum(axis=1)  # (N,): the trace of each image's own
    if shares.sum() < _LEAST_TOLD:
        return None
    strengths, directions = np.linalg.eigh(curvature / shares.sum())
    is_told = strengths > _LEAST_STRENGTH * strengths[-1]
    strengths, directions = strengths[is_told], directions[:, is_told]
    found, vectors = np.linalg.eigh((shown * shares[:, None]).T @ shown)  # (D + 1,), (D + 1, D + 1)
    found = np.maximum(found, 0)
    learnt = np.outer(found, strengths)  # (D + 1, J)
    precision = most_evident_prior(learnt, directions.T @ weights) if prior is None else prior
    is_kept = learnt[:, -1] > _LEAST_NARROWING * precision
    return Siblings(
        vectors=np.ascontiguousarray(vectors[:, is_kept].T, dtype=np.float32),
        curvatures=found[is_kept].astype(np.float32),
        directions=np.ascontiguousarray(directions, dtype=np.float32),
        strengths=strengths.astype(np.float32),
        prior=np.array([precision], dtype=np.float32),
    )


def most_evident_prior(learnt: Floats, weights: Floats) -> float:
    """Return the prior precision with the greatest evidence.

    Parameters
    ----------
    learnt
        Eigenvalues of the Gauss-Newton matrix.
    weights
        As many weights, along its eigenvectors or any turned axes: their squares are summed.
    """
    square = float((weights**2).sum())

    def without_evidence(log_precision: float) -> float:
        precision = np.exp(log_precision)
        return float(precision * square + np.log1p(learnt / precision).sum())

    low, high = np.log(_RANGE)
    return float(np.exp(optimize.minimize_scalar(without_evidence, bounds=(low, high), method="bounded").x))


def _weights(head: nn.Linear) -> Floats:
    columns = [head.weight.detach().double().cpu().numpy(), head.bias.detach().double().cpu().numpy()[:, None]]
    return np.concatenate(columns, axis=1)  # (K, D + 1)
