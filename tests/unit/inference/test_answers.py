"""What an evaluation asks of a network besides what a study would."""

import numpy as np
import pytest
import torch

from inference.transforms import Region, sample, stretched


def _lungs(top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Give a mask on a plane of 96 x 128, and the plane, which rises from edge to edge of the mask both ways."""
    mask, plane = np.zeros((96, 128), dtype=np.bool_), np.zeros((96, 128), dtype=np.float32)
    inside = slice(top, top + height), slice(left, left + width)
    mask[inside] = True
    plane[inside] = np.linspace(0, 1, height)[:, None] + np.linspace(0, 2, width)
    return mask, plane


def _seen(mask: np.ndarray, plane: np.ndarray) -> np.ndarray:
    theta = torch.from_numpy(stretched(mask, margin=1.0).theta())[None]
    return sample(torch.from_numpy(plane)[None, None], theta, 24)[0, 0].numpy()


def test_the_aspect_of_the_lungs_cannot_be_seen() -> None:
    """Wide lungs and tall ones at other places look the same once they are stretched to the square."""
    wide, tall = _seen(*_lungs(10, 8, 40, 100)), _seen(*_lungs(4, 50, 88, 36))

    assert np.abs(wide - tall)[1:-1, 1:-1].max() < 0.05
    assert wide[-2, -2] > 2.5


def test_each_side_of_the_box_gets_its_margin() -> None:
    """A box over the middle half of one side and a quarter of the other, each by a fifth longer."""
    mask, _ = _lungs(24, 48, 48, 32)

    region = stretched(mask, margin=1.2)

    assert (region.center_x, region.center_y) == (0, 0)
    assert (region.half_width, region.half_height) == (pytest.approx(0.3), pytest.approx(0.6))
    assert stretched(mask & False, margin=1.2) == Region(0, 0, 1, 1)
