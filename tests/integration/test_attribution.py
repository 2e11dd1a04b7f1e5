"""Attributions add up to what they explain, follow the weights, and are compared with the lungs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.attribution import METHODS, attribution_map, pixel_attributions
from inference.bundle import load_bundle
from inference.networks.heads import hierarchical_log_probabilities
from inference.networks.weights import load_network
from inference.training.explanations import GRAD_CAM, explain, randomised, spread_evenly, within
from inference.training.progress import Progress

_PARENTS = (0, 1, 1)
_CPU = torch.device("cpu")


def test_integrated_gradients_add_up(trained: tuple[Path, list[Progress]]) -> None:
    """Over all pixels they sum to the log-probability's gain over a blank image (completeness)."""
    network = load_network(load_bundle(trained[0]), _CPU)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))

    found = pixel_attributions(network, image, _PARENTS, 1)

    def said(shown: torch.Tensor) -> float:
        with torch.no_grad():
            logits = network.classify(network.features(shown))
        return float(hierarchical_log_probabilities(logits, _PARENTS).coarse[0, 1])

    gain = said(image) - said(image.mean().expand_as(image))
    assert float(found.sum()) == pytest.approx(gain, abs=0.1 * abs(gain) + 0.02)


@pytest.mark.parametrize("method", METHODS)
def test_attributions_repeat_and_follow_the_weights(trained: tuple[Path, list[Progress]], method: str) -> None:
    """The same network gives the same map again, and random weights another one."""
    network = load_network(load_bundle(trained[0]), _CPU)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))

    once, again, other = (
        attribution_map(pixel_attributions(each, image, _PARENTS, 1, method))
        for each in (network, network, randomised(network))
    )

    assert torch.equal(once, again)
    assert once.shape == (1, 64, 64) and float(once.min()) >= 0 and float(once.max()) == 1
    assert abs(np.corrcoef(once.flatten(), other.flatten())[0, 1]) < 0.7


def test_the_share_within_a_mask() -> None:
    """An even map has the mask's own share of the view; an empty one has none to tell."""
    mask = np.zeros((8, 8), dtype=np.bool_)
    mask[:4, :4] = True

    assert within(np.ones((8, 8)), mask) == pytest.approx(0.25)
    assert within(mask.astype(np.float64), mask) == 1
    assert np.isnan(within(np.zeros((8, 8)), mask))


def test_explanations_are_judged_on_validation_images(trained: tuple[Path, list[Progress]], chests: Path) -> None:
    """Every kind of map gets its overlap with the lungs, and what is left of it with random weights."""
    told = explain(trained[0], chests, 3, device="cpu", report=lambda _: None)

    assert told["images"] == 3
    for name in (GRAD_CAM, *METHODS):
        figures = told[name]
        assert isinstance(figures, dict)
        assert 0 < figures["within_lungs"] <= 1
        assert 0 < figures["lungs_share"] < 1
        assert abs(figures["randomised_correlation"]) < 0.7


def test_the_images_asked_are_spread_over_all() -> None:
    """A data set sorted by class is not judged by its first class alone; no more are asked than there are."""
    assert spread_evenly(list(range(0, 100, 10)), 4) == [0, 30, 60, 90]
    assert spread_evenly([3, 5], 9) == [3, 5]
