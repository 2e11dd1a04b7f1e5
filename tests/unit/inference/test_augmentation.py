"""Grey values vary as they always did, now by libraries: the formula that trained the shipped weights, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from inference.training.augmentation import AugmentationConfig, RandomViews, graded
from inference.training.data import Images

_SIZE = 32
_STILL = AugmentationConfig(contrast=0.0, noise=0.0, blur_share=0.0, erase_share=0.0)
_ROUNDING = 1e-5


def _images(count: int = 12) -> Images:
    generator = np.random.default_rng(4)
    lungs = np.zeros((count, 48, 48), np.uint8)
    lungs[:, 10:40, 6:20], lungs[:, 10:40, 28:42] = 1, 2
    nothing = np.zeros(count, dtype=np.int64)
    return Images(
        names=("",) * count,
        groups=("",) * count,
        grey=generator.integers(0, 256, (count, 48, 48)).astype(np.uint8),
        lungs=lungs,
        has_mask=np.ones(count, dtype=np.bool_),
        aspects=np.full(count, 1.2),
        has_aspect=np.ones(count, dtype=np.bool_),
        coarse=nothing,
        fine=nothing,
    )


def _by_hand(image: Tensor, config: AugmentationConfig, generator: np.random.Generator) -> Tensor:
    """Vary (B, 1, Y, X) as version 0.3.0 of the bundle was trained."""
    count, size = len(image), image.shape[-1]

    def uniform() -> Tensor:
        return torch.from_numpy(generator.uniform(-config.contrast, config.contrast, (count, 1, 1, 1))).float()

    varied = image.clamp(1e-3, 1) ** torch.exp(uniform())
    varied = (varied - 0.5) * (1 + uniform()) + 0.5 + uniform() / 2
    is_blurred = torch.from_numpy(generator.random(count) < config.blur_share)
    varied[is_blurred] = vision.gaussian_blur(varied[is_blurred], kernel_size=[5, 5], sigma=[1.0, 1.0])
    noise = torch.from_numpy(generator.standard_normal(image.shape, dtype=np.float32))
    varied = varied + noise * generator.uniform(0, config.noise)
    for index in np.flatnonzero(generator.random(count) < config.erase_share):
        height, width = (int(side) for side in generator.uniform(0.1, 0.3, size=2) * size)
        top, left = generator.integers(0, size - height), generator.integers(0, size - width)
        varied[index, :, top : top + height, left : left + width] = 0.5
    return varied.clamp(0, 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_numbers_vary_grey_values_as_before(seed: int) -> None:
    """Whatever is drawn: the libraries' arithmetic is the formula's to rounding, and the next draw is the same."""
    config, indices = replace(AugmentationConfig(blur_share=0.5, erase_share=0.7), contrast=0.4), np.arange(12)
    generator, by_hand = np.random.default_rng(seed), np.random.default_rng(seed)
    views = RandomViews(_images(), 1.1, config)
    still = RandomViews(_images(), 1.1, replace(_STILL, whole_share=config.whole_share))

    said = views.batch(indices, _SIZE, generator)
    same_cut = still.batch(indices, _SIZE, np.random.default_rng(seed)).image
    _leave_out_places(by_hand, len(indices))
    expected = _by_hand(same_cut, config, by_hand)

    assert type(said.image) is Tensor
    assert (said.image - expected).abs().max() < _ROUNDING
    assert generator.random() == by_hand.random()


def _leave_out_places(generator: np.random.Generator, count: int) -> None:
    """Draw what the cuts take: which views are whole, then turn, scale, stretch and two shifts of each."""
    generator.random(count + 5 * count)


@pytest.mark.parametrize(
    ("gamma", "contrast", "brightness", "expected"),
    [
        (1.0, 0.0, 0.0, [0.2, 0.5, 0.9]),
        (2.0, 0.0, 0.0, [0.04, 0.25, 0.81]),
        (1.0, 0.5, 0.0, [0.05, 0.5, 1.1]),
        (1.0, 0.0, 0.2, [0.3, 0.6, 1.0]),
        (2.0, 0.5, -0.2, [-0.29, 0.025, 0.865]),
    ],
)
def test_grey_values_are_graded_about_mid_grey(
    gamma: float, contrast: float, brightness: float, expected: list[float]
) -> None:
    """Gamma first; then contrast leaves mid-grey alone, and brightness moves it; nothing is clipped in between."""
    view = torch.tensor([[[0.2, 0.5, 0.9]]])

    assert graded(view, gamma, contrast, brightness)[0, 0].tolist() == pytest.approx(expected, abs=_ROUNDING)
