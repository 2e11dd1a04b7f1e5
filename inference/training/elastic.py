"""Elastic deformation (Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks", ICDAR 2003).

The deformation itself is torchvision's; the field comes from the run's own generator, and outlines are bent with
their image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

_SMOOTHNESS = 0.1
"""Standard deviation of the field's low pass over the image's side."""


def displacement(size: int, strength: float, generator: np.random.Generator) -> Tensor:
    """Return a smooth (1, size, size, 2) field in half sides; its largest shift is `strength`."""
    noise = torch.from_numpy(generator.uniform(-1, 1, (2, 1, size, size)).astype(np.float32))
    sigma = _SMOOTHNESS * size
    kernel = 2 * min(int(2 * sigma), (size - 1) // 2) + 1
    smooth = vision.gaussian_blur(noise, kernel_size=[kernel, kernel], sigma=[sigma, sigma])  # (2, 1, size, size)
    field = smooth * (strength / smooth.norm(dim=0).max().clamp_min(1e-6))
    moved: Tensor = field.permute(1, 2, 3, 0)  # (1, size, size, 2)
    return moved


def bend(
    image: Tensor, classes: Tensor, share: float, strength: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Bend a `share` of the images with their outlines.

    Parameters
    ----------
    image
        (B, 1, size, size).
    classes
        (B, size, size) int64; what comes from outside is 0.
    """
    chosen = np.flatnonzero(generator.random(len(image)) < share).tolist()
    if not chosen:
        return image, classes
    image, classes = image.clone(), classes.clone()
    for index in chosen:
        field = displacement(image.shape[-1], strength * generator.uniform(), generator)
        fill = [float(image[index].mean())]
        image[index] = vision.elastic(image[index], field, InterpolationMode.BILINEAR, fill)
        bent = vision.elastic(classes[index, None].float(), field, InterpolationMode.NEAREST, [0.0])
        classes[index] = bent[0].long()
    return image, classes
