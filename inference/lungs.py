"""A guard: an image without a plausible pair of lungs is no frontal chest X-ray that the model can read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inference.errors import NotEvaluableError
from inference.views import LungView

GUARDS = ("least_lung_share", "most_lungs_share", "least_confidence")
"""Thresholds that a bundle must give: shares of the image area, and a mean probability."""


def check_lungs(lungs: NDArray[np.uint8], view: LungView, thresholds: Mapping[str, float]) -> None:
    """Raise NotEvaluableError where the lungs are not plausible.

    Parameters
    ----------
    lungs
        (Y, X) segment numbers on the source grid.
    view
        What the network said about this one image.
    thresholds
        Those of `GUARDS`.
    """
    if not view.has_lungs[0]:
        raise NotEvaluableError("lungs.not-found", "No lungs were found in the image.")
    shares = [float((lungs == number).mean()) for number in range(1, view.lungs.shape[1])]
    if min(shares) < thresholds["least_lung_share"]:
        raise NotEvaluableError("lungs.not-found", "No pair of lungs was found in the image.")
    if sum(shares) > thresholds["most_lungs_share"]:
        raise NotEvaluableError("lungs.implausible", "What was found as lungs fills nearly the whole image.")
    if confidence(view) < thresholds["least_confidence"]:
        raise NotEvaluableError("lungs.implausible", "What was found as lungs does not look like lungs for certain.")


def confidence(view: LungView) -> float:
    """Return the mean probability of the winning class over the pixels that a lung won, 0 where none did."""
    best, winner = view.lungs[0].max(dim=0)
    won = winner > 0
    return float(best[won].mean()) if bool(won.any()) else 0.0
