"""What is told of a network while it is trained."""

import math

import numpy as np
import pytest

from inference.bundle import default_bundle_dir, load_bundle
from inference.training.answers import Answers, Scores
from inference.training.data import Images
from inference.training.watching import watched_figures

_BUNDLE = load_bundle(default_bundle_dir() / "cxr-pneumonia", verify_weights=False)


def _images(fine: list[int]) -> Images:
    count = len(fine)
    return Images(
        names=tuple(map(str, range(count))),
        groups=tuple(map(str, range(count))),
        grey=np.zeros((count, 2, 2), np.uint8),
        lungs=np.zeros((count, 2, 2), np.uint8),
        has_mask=np.ones(count, dtype=np.bool_),
        aspects=np.ones(count),
        has_aspect=np.ones(count, dtype=np.bool_),
        coarse=np.array([int(each > 0) for each in fine], dtype=np.int64),
        fine=np.array(fine, dtype=np.int64),
    )


def _answers(coarse: list[float], fine: list[float], dice: list[float]) -> Answers:
    """Return answers with a score of pneumonia and one of viral; of normal and bacterial it is 0."""
    nothing = np.zeros(len(coarse))
    scores = Scores(
        np.stack([nothing, coarse], axis=1), np.stack([nothing, nothing, fine], axis=1), np.zeros((len(coarse), 1))
    )
    return Answers(scores, np.stack([dice, dice], axis=1), np.ones(len(coarse), dtype=np.bool_), None)


def test_the_figures_are_those_of_their_definitions() -> None:
    """Five images: of the six pairs normal/pneumonia one is the wrong way round, of the two pairs below it one."""
    answers = _answers(
        coarse=[-2.0, 0.5, 0.2, 1.0, 3.0], fine=[9.0, 9.0, 1.0, 0.0, 2.0], dice=[0.5, math.nan, 0.7, 0.9, 0.9]
    )

    figures = watched_figures(_BUNDLE, _images([0, 0, 1, 2, 2]), answers)

    assert figures == pytest.approx({"coarse_auc": 5 / 6, "coarse_accuracy": 0.8, "fine_auc": 0.5, "dice": 0.75})


def test_what_the_images_do_not_tell_is_no_number() -> None:
    """Without a case of pneumonia there is no AUC, without a mask no overlap; the accuracy stands."""
    figures = watched_figures(_BUNDLE, _images([0, 0]), _answers([-1.0, 1.0], [0.0, 0.0], [math.nan, math.nan]))

    assert figures["coarse_accuracy"] == 0.5
    assert all(math.isnan(figures[name]) for name in ("coarse_auc", "fine_auc", "dice"))
