"""Whether a volume is what a bundle declares as its input (pure)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.applicability import Applicability
from inference.errors import NotEvaluableError
from inference.grid import extent_mm, spacing_along_axes_mm
from inference.input_spec import VolumeInput
from inference.volume import Volume

OTHER_SERIES = frozenset(
    {
        "body-part",
        "description",
        "geometry.extent",
        "geometry.not-a-volume",
        "geometry.planes",
        "geometry.resolution",
        "modality",
        "series.empty",
        "series.localizer",
        "series.mosaic",
        "series.secondary-capture",
        "series.unsupported",
        "pixels.colour",
    }
)
"""Refusals that say that a series is another one than the model is meant for, not that something is wrong with it."""

_DIRECTIONS = ("from foot to head", "from front to back", "from side to side")
_TOLERANCE_MM = 0.05


def check_volume(volume: Volume, meant: Applicability, spec: VolumeInput) -> NDArray[np.float64]:
    """Return the volume's affine where it is within the declared input.

    Raises
    ------
    NotEvaluableError
        It is not; with the value and what was expected.
    """
    if volume.modality not in meant.modalities:
        expected = " or ".join(meant.modalities)
        raise NotEvaluableError("modality", f"Modality is {volume.modality}, expected {expected}.")
    body_part, description = (volume.attributes.get(key, "") for key in ("BodyPartExamined", "SeriesDescription"))
    if not meant.covers(body_part, description):
        found = (
            f"The body part is {body_part}" if body_part.strip() else "The description names another part of the body"
        )
        raise NotEvaluableError("body-part", f"{found}, expected {' or '.join(meant.body_parts)}.")
    if not meant.covers_age(volume.attributes.get("PatientAge", "")):
        first, last = meant.ages_years or (0, 0)
        raise NotEvaluableError("age", f"The patient's age is outside the model's {first} to {last} years.")
    if volume.affine_lps is None:
        raise NotEvaluableError("geometry.not-a-volume", "The image is a projection, expected a stack of planes.")
    _check_geometry(volume.affine_lps, volume.voxels.shape, spec)
    if volume.voxels.min() == volume.voxels.max():
        raise NotEvaluableError("image.blank", "All voxels have the same value.")
    return volume.affine_lps


def _check_geometry(affine_lps: NDArray[np.float64], shape: tuple[int, ...], spec: VolumeInput) -> None:
    least, most = spec.planes
    if not least <= shape[0] <= most:
        raise NotEvaluableError("geometry.planes", f"The stack has {shape[0]} planes, expected {least} to {most}.")
    for found, limit, direction in zip(
        spacing_along_axes_mm(affine_lps), spec.most_spacing_mm, _DIRECTIONS, strict=True
    ):
        if found > limit + _TOLERANCE_MM:
            reason = f"Voxels are {found:.3g} mm apart {direction}, expected at most {limit:.3g} mm."
            raise NotEvaluableError("geometry.resolution", reason)
    reaches = zip(extent_mm(affine_lps, shape), spec.least_extent_mm, spec.most_extent_mm, _DIRECTIONS, strict=True)
    for found, lowest, highest, direction in reaches:
        if not lowest - _TOLERANCE_MM <= found <= highest + _TOLERANCE_MM:
            reason = f"The stack reaches over {found:.0f} mm {direction}, expected {lowest:.0f} to {highest:.0f} mm."
            raise NotEvaluableError("geometry.extent", reason)
