"""Random patches of labelled volumes, by MONAI's transforms.

A patch is cut with a margin around a random place, turned, scaled and bent with its labels, then its values vary as
scanners, kernels and coils vary them. Volumes are on the patient's grid, so x leads to the left whatever the scanner;
mirroring is asked for only where left and right are one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandBiasFieldd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import Rand3DElasticd, RandAffined, RandFlipd
from torch import Tensor

from inference.training.volume_config import VolumeAugmentationConfig

WHOLE = 255
IMAGE, SHARES = "image", "shares"
_MARGIN = 1.3
"""Side of what is cut out over the side of the patch, room for turning."""
_SIGMA = (4.0, 6.0)
"""Voxels; how smooth the bending is."""
_X_AXIS = 2
_LABELLED_SHARE = 0.7
"""Share of the patches that have a labelled voxel near their middle."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledGrid:
    """A case on the patient's grid."""

    image: Tensor
    """(Z, Y, X) float32, normalised."""
    shares: Tensor
    """(segments, Z, Y, X) uint8: the share of each segment in a voxel, `WHOLE` being all of it."""


class RandomPatches:
    """Batches of randomly varied patches.

    Parameters
    ----------
    cases
        Where they come from.
    patch
        (z, y, x).
    config
        How far they vary.
    """

    def __init__(
        self, cases: Sequence[LabelledGrid], patch: tuple[int, int, int], config: VolumeAugmentationConfig
    ) -> None:
        set_track_meta(False)
        self.cases = cases
        self.patch = patch
        self.vary = _transforms(patch, config)
        self.labelled = [
            torch.nonzero(case.shares.amax(dim=0) > WHOLE // 2).to(torch.int16) for case in cases
        ]  # each (N, 3)

    def seed(self, seed: int) -> None:
        """Start the transforms' random numbers anew."""
        self.vary.set_random_state(seed)

    def batch(self, indices: Sequence[int], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, z, y, x) and shares (B, 1 + segments, z, y, x), background first, both float32."""
        samples = [self.vary(self._cut(index, generator)) for index in indices]
        images = torch.stack([torch.as_tensor(sample[IMAGE]) for sample in samples]).float()
        shares = torch.stack([torch.as_tensor(sample[SHARES]) for sample in samples]).float()
        return images, torch.cat([1 - shares.sum(dim=1, keepdim=True), shares], dim=1)

    def _cut(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """Cut patch and margin out of a case; beyond the volume its border goes on, unlabelled."""
        case, spots = self.cases[index], self.labelled[index]
        shape = np.array(case.image.shape)
        side = np.ceil(np.array(self.patch) * _MARGIN).astype(int)
        if len(spots) and generator.random() < _LABELLED_SHARE:
            center = spots[int(generator.integers(len(spots)))].numpy().astype(int)
            center = center + generator.integers(-side // 4, side // 4 + 1)
        else:
            center = generator.integers(0, shape)
        # Where the patch is larger than the volume it lies around it; else it stays inside, its margin may not.
        half = np.array(self.patch) // 2
        low, high = np.minimum(half, shape // 2), np.maximum(shape - half, shape // 2)
        start = np.clip(center, low, high) - side // 2
        places = [torch.arange(int(first), int(first + count)) for first, count in zip(start, side, strict=True)]
        z, y, x = (place.clamp(0, int(last) - 1) for place, last in zip(places, shape, strict=True))
        inside = [(place >= 0) & (place < int(last)) for place, last in zip(places, shape, strict=True)]
        image = case.image[z][:, y][:, :, x]
        shares = case.shares[:, z][:, :, y][:, :, :, x].float() / WHOLE
        shares = shares * (inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :])
        return {IMAGE: image[None].clone(), SHARES: shares}


def _transforms(patch: tuple[int, int, int], config: VolumeAugmentationConfig) -> Compose:
    thick = (0.25, config.blur_sigma * 2)
    return Compose(
        [
            _spatial(patch, config),
            RandFlipd(keys=[IMAGE, SHARES], prob=config.mirror_share, spatial_axis=_X_AXIS),
            RandBiasFieldd(keys=[IMAGE], prob=config.bias_share, coeff_range=(-0.3, 0.3)),
            RandGaussianSmoothd(
                keys=[IMAGE],
                prob=config.blur_share,
                sigma_x=(0.25, 0.3),
                sigma_y=(0.25, config.blur_sigma),
                sigma_z=(0.25, config.blur_sigma),
            ),
            # MONAI names axes in the order of the array: its x is our z.
            RandGaussianSmoothd(
                keys=[IMAGE], prob=config.thick_share, sigma_x=thick, sigma_y=(0.2, 0.25), sigma_z=(0.2, 0.25)
            ),
            RandAdjustContrastd(
                keys=[IMAGE], prob=config.contrast_share, gamma=(1 - config.gamma, 1 + config.gamma), retain_stats=True
            ),
            RandScaleIntensityd(keys=[IMAGE], factors=config.contrast, prob=config.contrast_share),
            RandShiftIntensityd(keys=[IMAGE], offsets=config.contrast / 2, prob=config.contrast_share),
            RandGaussianNoised(keys=[IMAGE], prob=config.noise_share, std=config.noise),
        ]
    )


def _spatial(patch: tuple[int, int, int], config: VolumeAugmentationConfig) -> RandAffined | Rand3DElasticd:
    """Turn, scale, shear and shift; bend, too, where that is asked for, which takes several times as long."""
    turn = float(np.deg2rad(config.turn_degrees))
    moves: dict[str, Any] = {
        "keys": [IMAGE, SHARES],
        "prob": config.spatial_share,
        "rotate_range": (turn, turn / 2, turn / 2),
        "shear_range": (config.shear,) * 6,
        "translate_range": (config.shift_voxels,) * 3,
        "scale_range": (config.scale,) * 3,
        "spatial_size": patch,
        "mode": ("bilinear", "bilinear"),
        "padding_mode": "border",
    }
    if config.elastic == 0:
        return RandAffined(**moves)
    return Rand3DElasticd(sigma_range=_SIGMA, magnitude_range=(0.0, config.elastic), **moves)
