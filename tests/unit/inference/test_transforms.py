"""Cutting a plane and bringing results back to its grid."""

import numpy as np
import pytest
import torch

from inference.transforms import Region, around, letter_box, normalised, restore, sample, square_region


def test_a_letter_box_holds_the_whole_plane_and_is_square() -> None:
    """The longer side fills the region, the shorter one has equal bars."""
    wide, tall = letter_box(1.5), letter_box(0.5)

    assert wide == Region(0, 0, 1.0, 1.5)
    assert tall == Region(0, 0, 2.0, 1.0)


def test_a_region_undoes_the_squash() -> None:
    """A circle that was squashed with its plane to a square is a circle again in a cut."""
    height, width = 120, 240
    rows, columns = np.mgrid[:height, :width]
    circle = ((rows - 60) ** 2 + (columns - 120) ** 2 < 40**2).astype(np.float32)

    grey = normalised(circle, 96, (0, 100))
    theta = torch.from_numpy(letter_box(2.0).theta())[None]
    cut = sample(torch.from_numpy(grey)[None, None], theta, 96)[0, 0] > 0.5

    assert abs(int(cut.any(dim=0).sum()) - int(cut.any(dim=1).sum())) <= 2


def test_the_theta_and_its_inverse_cancel() -> None:
    """From region to plane and back is the identity."""
    region = Region(0.2, -0.1, 0.5, 0.8)
    forward = np.vstack([region.theta(), [0, 0, 1]])
    back = np.vstack([region.inverse_theta(), [0, 0, 1]])

    assert np.allclose(forward @ back, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("shape", [(101, 83), (64, 200)])
def test_a_cut_comes_back_to_its_place(shape: tuple[int, int]) -> None:
    """What was cut out of a plane and restored lies where it was, and the rest holds the fill value."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    plane = torch.from_numpy(np.sin(rows / 9.0) + np.cos(columns / 11.0)).float()[None, None]
    region = Region(0.1, -0.2, 0.6, 0.5)

    cut = sample(plane, torch.from_numpy(region.theta())[None], 160)
    back = restore(cut[0], region, shape, fill=-7)[0]

    inside = back != -7
    assert 0.25 < float(inside.float().mean()) < 0.35
    assert torch.allclose(back[inside], plane[0, 0][inside], atol=0.02)


def test_the_region_around_a_mask_meets_its_edges() -> None:
    """With margin 1 the longer side of the bounding box is the side of the square, pixel edges included."""
    mask = np.zeros((100, 50), dtype=np.bool_)
    mask[20:60, 10:30] = True

    region = around(mask, aspect=0.5, margin=1.0)

    assert region.center_y == pytest.approx(-0.2)
    assert region.center_x == pytest.approx(-0.2)
    assert region.half_height == pytest.approx(0.4)
    assert region.half_width * 0.5 == pytest.approx(region.half_height)


def test_there_is_no_region_around_nothing() -> None:
    """An empty mask has no bounding box."""
    with pytest.raises(ValueError, match="empty"):
        around(np.zeros((4, 4), dtype=np.bool_), 1.0, 1.1)


def test_grey_values_do_not_depend_on_bit_depth_or_offset() -> None:
    """The same picture in 8 bits and in shifted 12-bit values looks the same to the network."""
    picture = np.random.default_rng(0).uniform(0, 255, (90, 70)).astype(np.float32)

    assert np.allclose(
        normalised(picture, 32, (0.5, 99.5)), normalised(picture * 16 - 1024, 32, (0.5, 99.5)), atol=1e-4
    )


def test_reduction_is_low_passed() -> None:
    """Fine stripes of a large plane become an even grey, not coarse stripes."""
    stripes = np.tile(np.array([0, 100], dtype=np.float32), (400, 200))
    stripes[0, 0], stripes[-1, -1] = 0, 100

    grey = normalised(stripes, 64, (0, 100))

    assert grey[4:-4, 4:-4].std() < 0.2


def test_square_regions_are_square_in_millimetres() -> None:
    """Half sides differ by the aspect in normalised coordinates."""
    region = square_region(0, 0, 0.5, aspect=2.0)

    assert region.half_height == pytest.approx(region.half_width * 2.0)
