"""What a network says about a part of the images, by the code that also serves studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.errors import NotEvaluableError
from inference.lungs import check_lungs
from inference.networks.heads import ClassLogits, hierarchical_log_probabilities
from inference.networks.hybridmednet import HybridMedNet
from inference.novelty import KnownFeatures
from inference.predict import load_known
from inference.training.data import Images
from inference.training.scores import dice
from inference.views import LungView, described, look, segmented


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Raw scores, so that temperatures can be fitted and compared afterwards."""

    coarse_logits: NDArray[np.float64]
    """(N, coarse classes)."""
    fine_logits: NDArray[np.float64]
    """(N, fine classes)."""
    dice: NDArray[np.float64]
    """(N, segments); NaN where the image has no mask to compare with."""
    is_evaluable: NDArray[np.bool_]
    """(N,): False where the guards would withhold the answer."""
    features: NDArray[np.float64]
    """(N, D): what the heads saw."""

    def probabilities(
        self, parents: tuple[int, ...], temperatures: tuple[float, float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (N, coarse) and joint (N, fine) probabilities."""
        logits = ClassLogits(torch.from_numpy(self.coarse_logits), torch.from_numpy(self.fine_logits))
        levels = hierarchical_log_probabilities(logits, parents, temperatures)
        return levels.coarse.exp().numpy(), levels.fine.exp().numpy()


def ask(network: HybridMedNet, images: Images, bundle: Bundle, report: Callable[[int, int], None]) -> Answers:
    """Evaluate every image in the two looks of `views`, one at a time as a study would be."""
    known = load_known(bundle, network)
    coarse, fine, overlaps, evaluable, features = [], [], [], [], []
    for index in range(len(images)):
        grey = images.grey[index : index + 1].astype(np.float32) / np.float32(255)  # (1, detail, detail)
        view = look(network, grey, [float(images.aspects[index])], bundle.projection)
        lungs = segmented(view.lungs[0], view.regions[0], grey.shape[1:])
        coarse.append(view.classes.coarse[0].double().cpu().numpy())
        fine.append(view.classes.fine[0].double().cpu().numpy())
        overlaps.append(_overlaps(images, index, lungs, len(bundle.segments)))
        features.append(described(network, view)[0])
        evaluable.append(_is_evaluable(lungs, view, bundle) and _is_known(known, bundle, features[-1]))
        report(index + 1, len(images))
    return Answers(
        np.array(coarse), np.array(fine), np.array(overlaps), np.array(evaluable, dtype=np.bool_), np.array(features)
    )


def _overlaps(images: Images, index: int, lungs: NDArray[np.uint8], segments: int) -> list[float]:
    if not images.has_mask[index]:
        return [float("nan")] * segments
    return [dice(images.lungs[index] == number, lungs == number) for number in range(1, segments + 1)]


def _is_evaluable(lungs: NDArray[np.uint8], view: LungView, bundle: Bundle) -> bool:
    try:
        check_lungs(lungs, view, bundle.thresholds)
    except NotEvaluableError:
        return False
    return True


def _is_known(known: KnownFeatures | None, bundle: Bundle, features: NDArray[np.float64]) -> bool:
    if known is None or bundle.novelty is None:
        return True
    return bool(known.distances(features[None])[0] <= bundle.novelty.limit)
