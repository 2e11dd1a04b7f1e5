"""How well a network does while it is trained: on calibration groups, never on those that it is judged by.

Asked by the code that also serves studies, on some of the images, without temperatures or a posterior: those are fitted
to the same groups afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from inference.bundle import Bundle
from inference.laplace import predict
from inference.networks.hybridmednet import HybridMedNet
from inference.training.answers import Answers, ask
from inference.training.data import Images
from inference.training.evaluation import known_mean, positive_class
from inference.training.scores import accuracy, auc

_MOST = 256
"""Images that are asked about: seconds beside an epoch's minutes."""


def watching(bundle: Bundle, images: Images) -> Callable[[HybridMedNet], Mapping[str, float]]:
    """Return what tells a network's figures on these images; it draws no random number."""
    some = images.chosen(np.unique(np.linspace(0, len(images) - 1, min(_MOST, len(images))).astype(int)))
    fresh = replace(bundle, novelty=None)  # what is known of features is of the network before

    def figures(network: HybridMedNet) -> Mapping[str, float]:
        return watched_figures(bundle, some, ask(network.eval(), some, fresh, lambda *_: None))

    return figures


def watched_figures(bundle: Bundle, images: Images, answers: Answers) -> dict[str, float]:
    """Return AUC and accuracy of the coarse level, AUC of the fine one among what is positive, and mean Dice.

    Defined as in `evaluation`, but the accuracy is of the most probable class. NaN where the images do not tell.
    """
    parents, positive = bundle.parents, positive_class(bundle)
    coarse, fine = predict(answers.scores.draw(parents, None), parents, (1.0, 1.0))
    children = [child for child, parent in enumerate(parents) if parent == positive]
    inside = np.isin(images.fine, children)
    conditional = fine.probabilities[inside][:, children] / coarse.probabilities[inside][:, [positive]]  # (n, children)
    areas = [auc(images.fine[inside] == child, conditional[:, index]) for index, child in enumerate(children)]
    return {
        "coarse_auc": auc(images.coarse == positive, coarse.probabilities[:, positive]),
        "coarse_accuracy": accuracy(images.coarse, coarse.probabilities.argmax(axis=1)),
        "fine_auc": known_mean(np.array(areas)),
        "dice": known_mean(answers.dice),
    }
