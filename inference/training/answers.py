"""What a network says about a part of the images, by the code that also serves studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundle import Bundle
from inference.errors import NotEvaluableError
from inference.input_spec import ProjectionInput
from inference.laplace import Drawn, LastLayer, draw
from inference.lungs import check_lungs
from inference.networks.heads import ClassLogits
from inference.networks.hybridmednet import HybridMedNet
from inference.novelty import KnownFeatures, check_known
from inference.predict import Predictor, load_known
from inference.training.data import Images
from inference.training.scores import dice
from inference.transforms import sample, stretched
from inference.views import LungView, described, look, segmented


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Raw scores, so that temperatures can be fitted and compared afterwards, and what they were made from."""

    coarse: NDArray[np.float64]
    """(N, coarse classes)."""
    fine: NDArray[np.float64]
    """(N, fine classes)."""
    features: NDArray[np.float64]
    """(N, D): what the heads saw."""

    def draw(self, parents: Sequence[int], posterior: LastLayer | None) -> Drawn:
        """Return the scores at the points of a posterior; without one, themselves."""
        return draw(self.coarse, self.fine, parents, posterior, self.features)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a network says about a part."""

    scores: Scores
    dice: NDArray[np.float64]
    """(N, segments); NaN where the image has no mask to compare with."""
    is_evaluable: NDArray[np.bool_]
    """(N,): False where the guards would withhold the answer."""
    aspect_hidden: Scores | None
    """Of the lungs stretched to a square; None where that was not asked."""


def ask(
    network: HybridMedNet,
    images: Images,
    bundle: Bundle,
    report: Callable[[int, int], None],
    *,
    hide_aspect: bool = False,
) -> Answers:
    """Evaluate every image in the two looks of `views`, as many at once as in service.

    Parameters
    ----------
    hide_aspect
        Show the lungs stretched to a square, too.
    """
    known, spec = load_known(bundle, network), bundle.projection
    scores, hidden, overlaps, evaluable = [], [], [], []
    for start in range(0, len(images), Predictor.most_at_once):
        chosen = range(start, min(start + Predictor.most_at_once, len(images)))
        grey = images.grey[chosen].astype(np.float32) / np.float32(255)  # (B, detail, detail)
        view = look(network, grey, images.aspects[chosen].tolist(), spec)
        features = described(network, view)
        scores.append(_scores(view.classes, features))
        outlines = [segmented(*each, grey.shape[1:]) for each in zip(view.lungs, view.regions, strict=True)]
        for place, index in enumerate(chosen):
            overlaps.append(_overlaps(images, index, outlines[place], len(bundle.segments)))
            said = view.of([place])
            evaluable.append(_is_evaluable(outlines[place], said, features[[place]], known, bundle))
            report(index + 1, len(images))
        if hide_aspect:
            hidden.append(_stretched(network, grey, [each > 0 for each in outlines], spec))
    return Answers(
        _joined(scores), np.array(overlaps), np.array(evaluable, dtype=np.bool_), _joined(hidden) if hidden else None
    )


def _scores(classes: ClassLogits, features: NDArray[np.float64]) -> Scores:
    coarse, fine = (each.double().cpu().numpy() for each in classes)
    return Scores(coarse, fine, features)


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(*(np.concatenate([getattr(each, name) for each in parts]) for name in ("coarse", "fine", "features")))


def _stretched(
    network: HybridMedNet, grey: NDArray[np.float32], lungs: Sequence[NDArray[np.bool_]], spec: ProjectionInput
) -> Scores:
    """Return what is said of the lungs' bounding boxes as squares, whatever their sides are.

    Parameters
    ----------
    grey
        (B, Y, X) in 0..1.
    lungs
        (Y, X) of each; the whole plane is shown where it is empty.
    """
    device = next(network.parameters()).device
    thetas = torch.from_numpy(np.stack([stretched(mask, spec.margin).theta() for mask in lungs])).to(device)
    with torch.inference_mode():
        levels = network.features(sample(torch.from_numpy(grey)[:, None].to(device), thetas, spec.size))
        return _scores(network.classify(levels), network.described(levels).double().cpu().numpy())


def _overlaps(images: Images, index: int, lungs: NDArray[np.uint8], segments: int) -> list[float]:
    if not images.has_mask[index]:
        return [float("nan")] * segments
    return [dice(images.lungs[index] == number, lungs == number) for number in range(1, segments + 1)]


def _is_evaluable(
    lungs: NDArray[np.uint8],
    view: LungView,
    features: NDArray[np.float64],
    known: KnownFeatures | None,
    bundle: Bundle,
) -> bool:
    try:
        check_lungs(lungs, view, bundle.thresholds)
        if known is not None and bundle.novelty is not None:
            check_known(known, features, bundle.novelty.limit)
    except NotEvaluableError:
        return False
    return True
