"""Stored values of an instance's frames -> modality values (PS3.3 C.7.6.3, C.11.1; PS3.5 section 8).

Decoding is left to `decode`. What no free decoder reads, 12-bit JPEG Extended among it, is 'pixels.undecodable'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from inference.codestream import check_codestreams
from inference.decode import DECODED_APART, SeparateDecoder, iter_frames
from inference.errors import NotEvaluableError
from inference.instance import MALFORMED, item, text, transfer_syntax, whole

BITS_ALLOCATED = (8, 16, 32)
AIR_HU = -1000.0


@dataclass(frozen=True, slots=True)
class Coding:
    """How the stored values of an instance are to be read."""

    bits_allocated: int
    bits_stored: int
    is_signed: bool
    padding: tuple[int, int] | None
    """Lowest and highest stored value that stand for 'no image here' (PS3.3 C.7.5.1.1.2)."""
    is_inverted: bool
    """Whether low values are to be swapped with high ones: MONOCHROME1 of a projection image."""
    background: float | None
    """Modality value put in place of padding; None: the lowest other value of the frame."""

    @property
    def stored_range(self) -> tuple[int, int]:
        """Return the lowest and the highest value that the stored bits can hold."""
        if self.is_signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where the modality values of one frame go."""

    out: NDArray[np.float32]
    """(Y, X) view into the volume."""
    slope: float
    intercept: float


def read_coding(ds: Dataset, *, is_projection: bool, background: float | None) -> Coding:
    """Read and check the image pixel attributes of a header.

    MONOCHROME1 inverts projection images only: there it says which way the values run. In CT, MR and PET it is
    about display, and the modality values (HU, signal, activity) stand as they are.

    Raises
    ------
    NotEvaluableError
        'pixels.colour' or 'pixels.header'.
    """
    photometric = text(ds, "PhotometricInterpretation")
    if whole(ds, "SamplesPerPixel", "pixels.header") != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise NotEvaluableError("pixels.colour", "The image is not a grey-scale one.")
    allocated, stored, high, representation = (
        whole(ds, keyword, "pixels.header")
        for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    if allocated not in BITS_ALLOCATED or stored is None or not 1 <= stored <= allocated:
        raise NotEvaluableError("pixels.header", "Bits Allocated or Bits Stored is missing or not usable.")
    if high is not None and high != stored - 1:
        raise NotEvaluableError("pixels.header", "The stored bits are not the lowest ones (High Bit).")
    if representation not in {0, 1}:
        raise NotEvaluableError("pixels.header", "Pixel Representation is missing or neither 0 nor 1.")
    is_signed = representation == 1
    return Coding(
        bits_allocated=allocated,
        bits_stored=stored,
        is_signed=is_signed,
        padding=_padding(ds, allocated, is_signed),
        is_inverted=is_projection and photometric == "MONOCHROME1",
        background=background,
    )


def fill(ds: Dataset, path: Path, coding: Coding, targets: Mapping[int, Target], apart: SeparateDecoder) -> None:
    """Decode frames and write their modality values into their targets, one frame in memory at a time.

    Parameters
    ----------
    ds
        The whole instance, pixel data included.
    path
        Where it lies.
    coding
        From `read_coding` on the same instance.
    targets
        Frame index from 0 to target.
    apart
        Decodes what is not decoded in this process.

    Raises
    ------
    NotEvaluableError
        'pixels.missing', 'pixels.undecodable' or 'pixels.rescale'.
    """
    if "PixelData" not in ds:
        raise NotEvaluableError("pixels.missing", "An instance holds no pixel data.")
    waiting = dict(targets)
    rows, columns = next(iter(targets.values())).out.shape
    try:
        check_codestreams(ds, rows, columns)
        is_apart = ds.file_meta.TransferSyntaxUID in DECODED_APART
        frames = apart.iter_frames(path, (rows, columns)) if is_apart else iter_frames(ds)
        for index, stored in enumerate(frames):
            target = waiting.pop(index, None)
            if target is not None:
                _write(stored, ds, coding, target)
    except MALFORMED as error:
        reason = f"Pixel data in {transfer_syntax(ds)} cannot be decoded ({type(error).__name__})."
        raise NotEvaluableError("pixels.undecodable", reason) from None
    if waiting:
        raise NotEvaluableError("pixels.undecodable", f"Pixel data lacks {len(waiting)} of the declared frames.")


def _write(stored: NDArray[Any], ds: Dataset, coding: Coding, target: Target) -> None:
    padded = _padding_mask(stored, coding)
    _clear_unused_bits(stored, coding)
    if padded is None:
        padded = _in_padding(stored, coding)
    lowest, highest = coding.stored_range
    if item(ds, "ModalityLUTSequence") is not None:
        stored = apply_modality_lut(stored, ds)
        lowest, highest = 0, int(np.iinfo(stored.dtype).max)
    values = stored.astype(np.float64)
    if coding.is_inverted:
        np.subtract(lowest + highest, values, out=values)
    values *= target.slope
    values += target.intercept
    if padded is not None and padded.any():
        values[padded] = _background(values, padded, coding)
    if np.abs(values).max() > np.finfo(np.float32).max:
        raise NotEvaluableError("pixels.rescale", "The rescaled values do not fit single precision.")
    target.out[...] = values


def _clear_unused_bits(stored: NDArray[Any], coding: Coding) -> None:
    """Drop what lies above the stored bits, overlays for example, and extend the sign (PS3.5 8.1.1); in place."""
    shift = 8 * stored.dtype.itemsize - coding.bits_stored
    if shift > 0:
        np.left_shift(stored, shift, out=stored)
        np.right_shift(stored, shift, out=stored)


def _padding_mask(stored: NDArray[Any], coding: Coding) -> NDArray[np.bool_] | None:
    """Find padding whose value needs the unused bits, before they are cleared; None: look after that."""
    lowest, highest = coding.stored_range
    if coding.padding is None or lowest <= coding.padding[0] <= coding.padding[1] <= highest:
        return None
    return _in_padding(stored, coding)


def _in_padding(stored: NDArray[Any], coding: Coding) -> NDArray[np.bool_] | None:
    if coding.padding is None:
        return None
    first, last = coding.padding
    return (stored >= first) & (stored <= last)


def _background(values: NDArray[np.float64], padded: NDArray[np.bool_], coding: Coding) -> float:
    if coding.background is not None:
        return coding.background
    valid = values[~padded]
    return float(valid.min()) if valid.size else 0.0


def _padding(ds: Dataset, bits_allocated: int, is_signed: bool) -> tuple[int, int] | None:
    """Return the padding range as stored values, mending values written with the other signedness."""
    value = whole(ds, "PixelPaddingValue", "pixels.header")
    if value is None:
        return None
    limit = whole(ds, "PixelPaddingRangeLimit", "pixels.header")
    ends = [_as_stored(end, bits_allocated, is_signed) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, bits_allocated: int, is_signed: bool) -> int:
    modulus = 1 << bits_allocated
    if is_signed:
        return value - modulus if modulus // 2 <= value < modulus else value
    return value + modulus if -modulus // 2 <= value < 0 else value
