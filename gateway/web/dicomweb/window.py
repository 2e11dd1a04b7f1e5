"""Stored values -> the grey or colour that is shown: modality LUT, VOI LUT or window, polarity (PS3.4 N.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space

_COLOUR_DIMENSIONS = 3
_WHITE = 255.0

WindowShape = Literal["linear", "linear-exact", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window (PS3.3 C.11.2.1.2) as a client asks for it."""

    center: float
    width: float
    shape: WindowShape = "linear"


def shown(pixels: NDArray[Any], photometric: str, dataset: Dataset, index: int, window: Window | None) -> NDArray[Any]:
    """Return a frame as it is looked at.

    Parameters
    ----------
    pixels
        (Y, X) or (Y, X, samples), stored values.
    photometric
        Photometric Interpretation of `pixels`.
    dataset
        The header.
    index
        Of the frame, from 0: enhanced images say its values in functional groups.
    window
        Instead of what the header says.

    Returns
    -------
    NDArray
        (Y, X) or (Y, X, 3), uint8.
    """
    if photometric == "PALETTE COLOR":
        coloured = apply_color_lut(pixels, dataset)
        return (coloured >> 8).astype(np.uint8) if coloured.dtype.itemsize > 1 else coloured.astype(np.uint8)
    if pixels.ndim == _COLOUR_DIMENSIONS:
        return _colour(pixels, photometric, dataset)
    about = _frame_header(dataset, index)
    values = apply_modality_lut(pixels, about).astype(np.float64)
    grey = _windowed(values, window) if window is not None else _by_header(pixels, values, about, dataset)
    is_inverse = photometric == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    return (_WHITE - grey if is_inverse else grey).round().astype(np.uint8)


def _colour(pixels: NDArray[Any], photometric: str, dataset: Dataset) -> NDArray[Any]:
    if pixels.dtype.itemsize > 1:
        bits = int(dataset.get("BitsStored") or 16)
        pixels = (pixels >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)
    if photometric in {"YBR_FULL", "YBR_FULL_422"}:
        return convert_color_space(pixels, "YBR_FULL", "RGB")
    return pixels[..., :3]


def _by_header(
    pixels: NDArray[Any], values: NDArray[np.float64], about: Dataset, dataset: Dataset
) -> NDArray[np.float64]:
    """Apply the VOI LUT or the first window of the header; without either, the frame's own range."""
    if dataset.get("SegmentationType") == "FRACTIONAL":
        return _scaled(values, 0.0, float(dataset.get("MaximumFractionalValue") or _WHITE))
    if dataset.get("BitsAllocated") == 1:
        return values * _WHITE
    if about.get("VOILUTSequence"):
        looked_up = apply_voi_lut(np.asarray(values if not _is_whole(values) else values.astype(np.int64)), about)
        return _scaled(looked_up.astype(np.float64), float(looked_up.min()), float(looked_up.max()))
    center, width = _first(about.get("WindowCenter")), _first(about.get("WindowWidth"))
    if center is not None and width is not None and width > 0:
        shape = {"SIGMOID": "sigmoid", "LINEAR_EXACT": "linear-exact"}.get(str(about.get("VOILUTFunction")), "linear")
        return _windowed(values, Window(center, width, shape))  # type: ignore[arg-type] # one of three
    seen = values
    if "PixelPaddingValue" in dataset and (inside := pixels != dataset.PixelPaddingValue).any():
        seen = values[inside]
    return _scaled(values, float(seen.min()), float(seen.max()))


def _windowed(values: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Apply a window (PS3.3 C.11.2.1.2.1 and C.11.2.1.3)."""
    center, width = window.center, window.width
    if window.shape == "sigmoid":
        return _WHITE / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if window.shape == "linear":
        center, width = center - 0.5, max(width - 1, 1e-6)
    return _scaled(values, center - width / 2, center + width / 2)


def _scaled(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return np.clip((values - low) / (high - low if high > low else 1.0), 0, 1) * _WHITE


def _frame_header(dataset: Dataset, index: int) -> Dataset:
    """Return the attributes of the pixel value transformation and of the VOI LUT that hold for a frame."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    own = per_frame[index] if index < len(per_frame) else Dataset()
    about = Dataset()
    for holder in (dataset, shared, own):
        for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            if holder.get(keyword):
                about.update(holder[keyword].value[0])
    for keyword in (
        *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction"),
        *("WindowCenter", "WindowWidth"),
    ):
        if keyword in dataset and keyword not in about:
            about[keyword] = dataset[keyword]
    return about


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float | str) else value[0])


def _is_whole(values: NDArray[np.float64]) -> bool:
    return bool((values == values.round()).all())
