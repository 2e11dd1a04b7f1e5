"""What the side of the network's input leaves of outlines: the most that it could reach with nothing else wrong."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from inference.bundle import Bundle
from inference.training.augmentation import sample_classes
from inference.training.data import Images
from inference.training.scores import dice
from inference.training.targets import BACKGROUND
from inference.transforms import around
from inference.views import segmented


def kept_at_resolution(bundle: Bundle, images: Images) -> NDArray[np.float64]:
    """Return (M, segments) Dice of the M masks that can be trusted with what is left of each on the network's grid.

    A mask is cut to its own lungs as training cuts it, and brought back as an answer is.
    """
    spec, classes = bundle.projection, 1 + len(bundle.segments)
    overlaps = []
    for index in np.flatnonzero(images.has_mask):
        mask = images.lungs[index]  # (detail, detail)
        region = around(mask != BACKGROUND, float(images.aspects[index]), spec.margin)
        theta, whole = torch.from_numpy(region.theta())[None], torch.from_numpy(mask)[None, None].float()
        taught = functional.one_hot(sample_classes(whole, theta, spec.size)[0], classes)  # (size, size, classes)
        kept = segmented(taught.permute(2, 0, 1).float(), region, mask.shape)
        overlaps.append([dice(mask == number, kept == number) for number in range(1, classes)])
    return np.array(overlaps, dtype=np.float64).reshape(-1, classes - 1)
