"""What the side of the network's input leaves of outlines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.bundle import default_bundle_dir, load_bundle
from inference.training.data import Images
from inference.training.resolution import kept_at_resolution

_DETAIL = 120


def _images(*, has_mask: bool) -> Images:
    """Give two images with the same round lungs, the second with a mask that may not be trusted."""
    y, x = np.mgrid[:_DETAIL, :_DETAIL]
    lungs = np.zeros((2, _DETAIL, _DETAIL), np.uint8)
    for number, center in enumerate((35, 85), start=1):
        lungs[:, (x - center) ** 2 + (y - 60) ** 2 < 20**2] = number
    nothing = np.zeros(2, dtype=np.int64)
    return Images(
        names=("",) * 2,
        groups=("",) * 2,
        grey=np.zeros_like(lungs),
        lungs=lungs,
        has_mask=np.array([has_mask, False]),
        aspects=np.ones(2),
        has_aspect=np.ones(2, dtype=np.bool_),
        coarse=nothing,
        fine=nothing,
    )


@pytest.mark.parametrize(("size", "low", "high"), [(256, 0.99, 1.0), (32, 0.95, 0.99), (8, 0.7, 0.95)])
def test_the_smaller_the_input_the_less_is_left_of_an_outline(size: int, low: float, high: float) -> None:
    """Of round lungs nearly all on a fine grid, on a coarse one visibly less; both lungs alike."""
    bundle = load_bundle(default_bundle_dir() / "cxr-pneumonia")
    shown = replace(bundle, input=replace(bundle.projection, size=size, detail=_DETAIL))

    kept = kept_at_resolution(shown, _images(has_mask=True))

    assert kept.shape == (1, 2)
    assert ((low < kept) & (kept <= high)).all()


def test_only_masks_that_can_be_trusted_count() -> None:
    """Without any there is nothing to tell."""
    bundle = load_bundle(default_bundle_dir() / "cxr-pneumonia")

    assert kept_at_resolution(bundle, _images(has_mask=False)).shape == (0, 2)
