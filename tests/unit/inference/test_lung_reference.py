"""The classical reference on a made-up chest whose lungs are known."""

from __future__ import annotations

import numpy as np
import pytest

from inference.training.lung_reference import LEFT, RIGHT, reference_lungs
from inference.training.scores import dice
from tests.chest import chest


def test_lungs_are_found_without_outside_air_windpipe_and_table() -> None:
    """Both lungs overlap with the truth by 0.98, vessels filled; nothing else is labelled."""
    voxels, truth, affine = chest()

    found = reference_lungs(voxels, affine)

    assert dice(truth == RIGHT, found == RIGHT) > 0.98
    assert dice(truth == LEFT, found == LEFT) > 0.98
    windpipe = (voxels < -900) & (truth == 0)
    assert not (found[:, 40:90, 75:95][windpipe[:, 40:90, 75:95]] > 0).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sides_come_from_the_affine(axis: int) -> None:
    """The same chest stored the other way round along any axis has its right lung in the same place."""
    voxels, truth, affine = chest()
    flip = np.eye(4)
    flip[2 - axis, 2 - axis] = -1
    flip[2 - axis, 3] = voxels.shape[axis] - 1

    found = reference_lungs(np.flip(voxels, axis).copy(), affine @ flip)

    assert dice(np.flip(truth, axis) == RIGHT, found == RIGHT) > 0.98


def test_lungs_that_touch_are_parted() -> None:
    """Lungs that meet in front of the heart come out as two, each by far the greater part of its own."""
    voxels, truth, affine = chest(gap_mm=1.5)

    found = reference_lungs(voxels, affine)

    assert dice(truth == RIGHT, found == RIGHT) > 0.95
    assert dice(truth == LEFT, found == LEFT) > 0.95


def test_what_holds_no_lungs_or_no_axial_planes_is_refused() -> None:
    """A block of water and a coronal stack say why."""
    voxels, _, affine = chest()
    coronal = affine[:, [0, 2, 1, 3]]

    with pytest.raises(ValueError, match="no lungs"):
        reference_lungs(np.where(voxels < -500, np.float32(0), voxels), affine)
    with pytest.raises(ValueError, match="axial"):
        reference_lungs(voxels, coronal)
