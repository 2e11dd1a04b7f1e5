"""A one-bit lung mask as three classes: background, right lung, left lung.

In a frontal X-ray the patient faces the reader: the patient's right lung is on the left of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BACKGROUND, RIGHT_LUNG, LEFT_LUNG = 0, 1, 2
_SMALLEST_LUNG = 0.1
"""A component under this share of the mask is no lung of its own."""


def sided(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return (Y, X) classes of a (Y, X) lung mask.

    Two large components are the two lungs, in order of their centres; small parts go to the nearer one. Lungs that
    touch are parted at the emptiest column between them.
    """
    classes = np.zeros(mask.shape, dtype=np.uint8)
    if not mask.any():
        return classes
    components, count = ndimage.label(mask)
    areas = np.bincount(components.ravel(), minlength=count + 1)[1:]
    lungs = np.flatnonzero(areas >= _SMALLEST_LUNG * areas.sum()) + 1
    if len(lungs) == 2:  # noqa: PLR2004 -- a chest has two lungs
        centers = sorted(ndimage.center_of_mass(mask, components, lung)[1] for lung in lungs)
        ordered = sorted(lungs, key=lambda lung: ndimage.center_of_mass(mask, components, lung)[1])
        middle = (centers[0] + centers[1]) / 2
        columns = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
        right = (components == ordered[0]) | ((components != ordered[1]) & (columns < middle))
    else:
        right = np.broadcast_to(np.arange(mask.shape[1]) < _parting(mask), mask.shape)
    classes[mask & right] = RIGHT_LUNG
    classes[mask & ~right] = LEFT_LUNG
    return classes


def _parting(mask: NDArray[np.bool_]) -> int:
    """Return the column with the fewest lung pixels in the middle half of the mask's width."""
    columns = np.flatnonzero(mask.any(axis=0))
    first, width = columns[0], columns[-1] - columns[0] + 1
    start = first + width // 4
    middle = mask[:, start : first + 3 * width // 4 + 1].sum(axis=0)
    return int(start + np.flatnonzero(middle == middle.min()).mean())
