"""An image in two looks: the whole plane to find the lungs, then the lungs to classify and to outline them.

The second look is the one that counts. It hides the borders and most of the aspect ratio of the image, which alone tell
normal from pneumonia in some collections, and shows the lungs as large as the network's input allows. Training cuts its
views the same way, and evaluation runs exactly this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from inference.device import onto_device
from inference.input_spec import ProjectionInput
from inference.networks.heads import ClassLogits
from inference.networks.hybridmednet import HybridMedNet
from inference.transforms import Region, around, letter_box, restore_inside, sample


@dataclass(frozen=True, slots=True, eq=False)
class LungView:
    """What the network says about a batch; `regions[i]` places the maps of image i on its plane."""

    regions: tuple[Region, ...]
    levels: list[Tensor]
    """Fused levels of the second look, for `saliency.grad_cam`."""
    classes: ClassLogits
    lungs: Tensor
    """(B, 1 + segments, size, size) probabilities on `regions`."""
    has_lungs: tuple[bool, ...]
    """False where the first look found none; the second then showed the whole plane again."""

    def of(self, images: Sequence[int]) -> LungView:
        """Return what it says about some of the images."""
        chosen = list(images)
        return LungView(
            regions=tuple(self.regions[image] for image in chosen),
            levels=[level[chosen] for level in self.levels],
            classes=ClassLogits(self.classes.coarse[chosen], self.classes.fine[chosen]),
            lungs=self.lungs[chosen],
            has_lungs=tuple(self.has_lungs[image] for image in chosen),
        )


def look(network: HybridMedNet, grey: NDArray[np.float32], aspects: Sequence[float], spec: ProjectionInput) -> LungView:
    """Evaluate planes on the detail grid.

    Parameters
    ----------
    grey
        (B, detail, detail) in 0..1, as by `transforms.normalised`.
    aspects
        Physical width over height of each plane.
    """
    planes = onto_device(torch.from_numpy(grey)[:, None], next(network.parameters()).device)  # (B, 1, detail, detail)
    whole = tuple(letter_box(aspect) for aspect in aspects)
    with torch.inference_mode():
        found = _lungs(network, network.features(_cut(planes, whole, spec.size)), spec.size)
        regions, has_lungs = _around_lungs(found, whole, aspects, spec)
        levels = network.features(_cut(planes, regions, spec.size))
        return LungView(
            regions=regions,
            levels=levels,
            classes=network.classify(levels),
            lungs=_lungs(network, levels, spec.size),
            has_lungs=has_lungs,
        )


def described(network: HybridMedNet, view: LungView) -> NDArray[np.float64]:
    """Return (B, D) what the heads see of the second look: the pooled levels."""
    features: NDArray[np.float64] = network.described(view.levels).double().cpu().numpy()
    return features


def _cut(planes: Tensor, regions: Sequence[Region], size: int) -> Tensor:
    thetas = torch.from_numpy(np.stack([region.theta() for region in regions])).to(planes.device)
    return sample(planes, thetas, size)  # (B, 1, size, size)


def _lungs(network: HybridMedNet, levels: Sequence[Tensor], size: int) -> Tensor:
    return torch.softmax(network.segment(levels, (size, size)), dim=1)


def _around_lungs(
    found: Tensor, whole: Sequence[Region], aspects: Sequence[float], spec: ProjectionInput
) -> tuple[tuple[Region, ...], tuple[bool, ...]]:
    regions, has_lungs = [], []
    for probabilities, region, aspect in zip(found, whole, aspects, strict=True):
        mask = segmented(probabilities, region, (spec.detail, spec.detail)) > 0
        has_lungs.append(bool(mask.any()))
        regions.append(around(mask, aspect, spec.margin) if mask.any() else region)
    return tuple(regions), tuple(has_lungs)


def segmented(probabilities: Tensor, region: Region, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return (Y, X) segment numbers on the source grid: the most probable class, of each segment the largest part.

    Parameters
    ----------
    probabilities
        (1 + segments, size, size) on `region`.
    shape
        (Y, X) of the source grid.
    """
    inside, on_source = restore_inside(probabilities, region, shape)
    cleaned = np.zeros(tuple(shape), dtype=np.uint8)
    found, inner = _winner(on_source).cpu().numpy(), cleaned[inside]
    for number, box in enumerate(ndimage.find_objects(found, max_label=len(probabilities) - 1), start=1):
        if box is not None:
            inner[box][_largest_part(found[box] == number)] = number
    return cleaned


def _winner(probabilities: Tensor) -> Tensor:
    """Return (Y, X) uint8 the most probable class, the first of equals; `argmax` is many times slower on a CPU."""
    best = probabilities[0].clone()
    winner = torch.zeros_like(best, dtype=torch.uint8)
    for number, probability in enumerate(probabilities[1:], start=1):
        winner.masked_fill_(probability > best, number)
        torch.maximum(best, probability, out=best)
    return winner


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    largest: NDArray[np.bool_] = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return largest
