"""Random views and grey values of a batch.

A view is either the lungs, cut as at inference but shifted, turned, scaled and stretched, or the whole plane. The
stretch hides what is left of the aspect ratio, which alone tells normal from pneumonia in some collections; a share of
the views hides all of it: their lungs fill a square. For the same reason the whole plane serves the segmentation
alone. Images are never mirrored: left and right lung must stay apart.

What changes grey values is torchvision's and MONAI's. Every random number comes from the run's own generator, always
in the same order, so that a resumed run draws what it would have drawn: of the libraries only what takes its numbers
as parameters serves, and the noise, which both draw themselves, is added here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from monai.transforms.intensity.array import ScaleIntensity, ShiftIntensity
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from inference.training.clahe import equalised
from inference.training.data import Images
from inference.training.elastic import bend
from inference.training.targets import BACKGROUND
from inference.transforms import Region, around, letter_box, sample, square_region, stretched

_DARKEST = 1e-3
"""Grey value below which gamma changes nothing more."""
_MID_GREY = 0.5


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """The `[training.augmentation]` table of a bundle."""

    whole_share: float = 0.2
    """Share of views that show the whole plane and train the segmentation alone."""
    square_share: float = 0.0
    """Share of the views of lungs whose bounding box fills the square, whatever its sides are."""
    scale: float = 0.12
    """Relative side: uniform within 1 ± scale."""
    stretch: float = 0.12
    """Relative change of width against height."""
    shift: float = 0.08
    """Of the region's half side."""
    turn_degrees: float = 8.0
    contrast: float = 0.25
    """Largest relative change of contrast about mid-grey and of mid-grey itself, and of gamma its logarithm's."""
    blur_share: float = 0.2
    noise: float = 0.02
    """Standard deviation at most, grey values being in 0..1."""
    erase_share: float = 0.25
    """Share of images that lose a rectangle."""
    elastic_share: float = 0.0
    """Share of images that are bent."""
    elastic: float = 0.06
    """Largest shift of a place, of half the view's side."""
    clahe_share: float = 0.0
    """Share of images whose contrast is equalised by tiles."""
    clahe_limit: float = 3.0
    """The limit of that is drawn between 1 and this."""
    clahe_tiles: int = 8
    """Tiles along each side."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One training step's input and targets."""

    image: Tensor
    """(B, 1, size, size) float32 in 0..1."""
    lungs: Tensor
    """(B, size, size) int64."""
    has_mask: Tensor
    """(B,) bool."""
    is_classified: Tensor
    """(B,) bool: the view may teach the classifier."""
    coarse: Tensor
    fine: Tensor


def lung_regions(images: Images, margin: float) -> list[Region]:
    """Return the region around each image's lungs; where the mask is not known, the mean region."""
    known = {
        index: around(images.lungs[index] != BACKGROUND, images.aspects[index], margin) for index in _with_mask(images)
    }
    if not known:
        return [letter_box(aspect) for aspect in images.aspects]
    mean = _mean(list(known.values()))
    return [
        known.get(index) or square_region(mean.center_x, mean.center_y, mean.half_height, aspect)
        for index, aspect in enumerate(images.aspects)
    ]


def square_regions(images: Images, margin: float) -> list[Region]:
    """Return the bounding box of each image's lungs; where the mask is not known, the mean box."""
    known = {index: stretched(images.lungs[index] != BACKGROUND, margin) for index in _with_mask(images)}
    mean = _mean(list(known.values())) if known else Region(0.0, 0.0, 1.0, 1.0)
    return [known.get(index, mean) for index in range(len(images))]


def _with_mask(images: Images) -> list[int]:
    indices: list[int] = np.flatnonzero(images.has_mask).tolist()
    return indices


def _mean(regions: Sequence[Region]) -> Region:
    return Region(*(float(each) for each in np.mean([astuple(region) for region in regions], axis=0)))


class RandomViews:
    """Batches of randomly varied views.

    Parameters
    ----------
    images
        Where they come from.
    margin
        Side of the cut around the lungs over their bounding box.
    config
        How far they vary.
    """

    def __init__(self, images: Images, margin: float, config: AugmentationConfig) -> None:
        self.images = images
        self.config = config
        self.regions = lung_regions(images, margin)
        self.squares = square_regions(images, margin) if config.square_share else self.regions

    def batch(self, indices: NDArray[np.int64], size: int, generator: np.random.Generator) -> Batch:
        """Cut and vary the images at `indices`; `size` is the side of the views."""
        images, config = self.images, self.config
        is_whole = generator.random(len(indices)) < config.whole_share
        chosen = [self._region(*each, generator) for each in zip(indices.tolist(), is_whole.tolist(), strict=True)]
        thetas = torch.from_numpy(np.stack([region.theta() @ _jitter(config, generator) for region in chosen]))
        grey = torch.from_numpy(images.grey[indices])[:, None].float() / 255  # (B, 1, Y, X)
        lungs = torch.from_numpy(images.lungs[indices])[:, None].float()
        view, outlines = sample(grey, thetas, size), sample_classes(lungs, thetas, size)
        if config.elastic_share:
            view, outlines = bend(view, outlines, config.elastic_share, config.elastic, generator)
        if config.clahe_share:
            view = _equalised(view, config, generator)
        return Batch(
            image=_vary_grey(view, config, generator),
            lungs=outlines,
            has_mask=torch.from_numpy(images.has_mask[indices]),
            is_classified=torch.from_numpy(~is_whole),
            coarse=torch.from_numpy(images.coarse[indices]),
            fine=torch.from_numpy(images.fine[indices]),
        )

    def _region(self, index: int, is_whole: bool, generator: np.random.Generator) -> Region:
        if is_whole:
            return letter_box(self.images.aspects[index])
        is_square = self.config.square_share and generator.random() < self.config.square_share
        return (self.squares if is_square else self.regions)[index]


def sample_classes(lungs: Tensor, thetas: Tensor, size: int) -> Tensor:
    """Cut (B, 1, Y, X) class maps without mixing the classes; (B, size, size) int64."""
    grid = torch.nn.functional.affine_grid(thetas, [len(lungs), 1, size, size], align_corners=False)
    cut = torch.nn.functional.grid_sample(lungs, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return cut[:, 0].long()


def _jitter(config: AugmentationConfig, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return a (3, 3) affine of region coordinates: shift, turn, scale and stretch at random.

    It is multiplied with the cut to the region, so that an image is sampled once, from its detail grid. torchvision's
    `affine` would sample the cut again, which blurs it and brings nothing back from beyond the cut, and it knows one
    scale for both sides: no stretch.
    """
    angle = np.deg2rad(generator.uniform(-config.turn_degrees, config.turn_degrees))
    scale = 1 + generator.uniform(-config.scale, config.scale)
    stretch = np.sqrt(1 + generator.uniform(-config.stretch, config.stretch))
    shift_x, shift_y = generator.uniform(-config.shift, config.shift, size=2)
    cosine, sine = np.cos(angle), np.sin(angle)
    sides = np.diag([scale * stretch, scale / stretch])
    jitter = np.eye(3, dtype=np.float32)
    jitter[:2, :2] = np.array([[cosine, -sine], [sine, cosine]]) @ sides
    jitter[:2, 2] = shift_x, shift_y
    return jitter


def _equalised(image: Tensor, config: AugmentationConfig, generator: np.random.Generator) -> Tensor:
    """Equalise a share of the images by tiles, each with a limit of its own."""
    image = image.clone()
    for index in np.flatnonzero(generator.random(len(image)) < config.clahe_share).tolist():
        limit = generator.uniform(1, config.clahe_limit)
        image[index] = equalised(image[index, None].clamp(0, 1), config.clahe_tiles, limit)[0]
    return image


def _vary_grey(image: Tensor, config: AugmentationConfig, generator: np.random.Generator) -> Tensor:
    """Vary gamma, contrast, brightness, sharpness and noise, and erase rectangles; (B, 1, Y, X) in 0..1."""
    count = len(image)

    def uniform() -> list[float]:
        changes: list[float] = generator.uniform(-config.contrast, config.contrast, count).tolist()
        return changes

    changes = zip(np.exp(uniform()).tolist(), uniform(), uniform(), strict=True)
    varied = torch.stack([graded(view, *change) for view, change in zip(image, changes, strict=True)])
    is_blurred = torch.from_numpy(generator.random(count) < config.blur_share)
    if is_blurred.any():
        varied[is_blurred] = vision.gaussian_blur(varied[is_blurred], kernel_size=[5, 5], sigma=[1.0, 1.0])
    noise = torch.from_numpy(generator.standard_normal(image.shape, dtype=np.float32))
    varied = varied + noise * generator.uniform(0, config.noise)
    _erase(varied, config.erase_share, generator)
    return varied.clamp(0, 1)


def graded(view: Tensor, gamma: float, contrast: float, brightness: float) -> Tensor:
    """Return a (1, Y, X) view in 0..1 with another gamma, then another contrast and brightness; beyond 0..1, too.

    torchvision's `adjust_contrast` turns about the mean of each image, so that contrast changed with how much of the
    view is lung, and clips before brightness is changed; MONAI's two are linear, about what they are told.

    Parameters
    ----------
    gamma
        Exponent.
    contrast
        Relative change of the distance from mid-grey.
    brightness
        Relative change of mid-grey.
    """
    curved = vision.adjust_gamma(view.clamp(_DARKEST, 1), gamma)
    about_mid_grey = ShiftIntensity(offset=-_MID_GREY)(curved)
    scaled = ScaleIntensity(minv=None, maxv=None, factor=contrast)(about_mid_grey)
    shifted = ShiftIntensity(offset=_MID_GREY * (1 + brightness))(scaled)
    return torch.as_tensor(shifted).as_subclass(Tensor)  # MONAI may have made it one with metadata


def _erase(image: Tensor, share: float, generator: np.random.Generator) -> None:
    """Set a rectangle of 1 % to 9 % of the area to mid-grey in a `share` of the images, in place."""
    size, grey = image.shape[-1], torch.tensor(_MID_GREY)
    for index in np.flatnonzero(generator.random(len(image)) < share):
        height, width = (int(side) for side in generator.uniform(0.1, 0.3, size=2) * size)
        top, left = int(generator.integers(0, size - height)), int(generator.integers(0, size - width))
        vision.erase(image[index], top, left, height, width, grey, inplace=True)
