"""A stored file as Explicit VR Little Endian, the transfer syntax that every client takes (PS3.18 8.7.3.5)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import structlog
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.decoding import MALFORMED, PLUGINS, FrameDecoder, UndecodableError, parsing, read_file
from gateway.web.dicomweb.negotiation import EXPLICIT
from gateway.web.dicomweb.pixels import BIG_ENDIAN, NATIVE

log = structlog.get_logger()

CONVERTIBLE = NATIVE | PLUGINS.keys()
"""Transfer syntaxes that become Explicit VR Little Endian here."""
SIZE_LIMIT = 1 << 29
"""Bytes of the largest file that is transcoded: it is held in memory."""
_WORD = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_COLOUR_SAMPLES = 3


def to_explicit(path: Path, decoder: FrameDecoder) -> bytes:
    """Return the file in Explicit VR Little Endian.

    Raises
    ------
    UndecodableError
        Its pixel data, or the data set, cannot be read.
    """
    try:
        with parsing():
            return _encoded(_converted(path, decoder))
    except MALFORMED as error:
        raise UndecodableError(type(error).__name__) from error


def _converted(path: Path, decoder: FrameDecoder) -> Dataset:
    dataset = read_file(path)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax == BIG_ENDIAN:
        _swap(dataset)
    elif syntax not in NATIVE and "PixelData" in dataset:
        _decode(dataset, path, decoder)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    # Private elements without a known VR are written as UN; group lengths of old files go.
    pydicom.dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _swap(dataset: Dataset) -> None:
    """Turn the words of binary values around; numbers pydicom writes anew by itself."""
    for element in dataset.iterall():
        width = _WORD.get(element.VR)
        if width is not None and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, dtype=f"u{width}").byteswap().tobytes()


def _decode(dataset: Dataset, path: Path, decoder: FrameDecoder) -> None:
    """Put decoded pixel data in (PS3.5 8.1.1); colour becomes RGB by pixel."""
    count = max(1, int(dataset.get("NumberOfFrames") or 1))
    frames = decoder.frames(path, range(count))
    pixels = b"".join(
        np.ascontiguousarray(one.pixels).astype(one.pixels.dtype.newbyteorder("<")).tobytes() for one in frames
    )
    first = frames[0]
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    bits = first.pixels.dtype.itemsize * 8
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"  # noqa: PLR2004 # bits of a byte
    dataset["PixelData"].is_undefined_length = False
    dataset.BitsAllocated = bits
    if first.pixels.ndim == _COLOUR_SAMPLES:
        dataset.PhotometricInterpretation = first.photometric
        dataset.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)


def is_convertible(transfer_syntax_uid: str, size_bytes: int) -> bool:
    """Say whether a file can be had in Explicit VR Little Endian."""
    return transfer_syntax_uid == EXPLICIT or (transfer_syntax_uid in CONVERTIBLE and size_bytes <= SIZE_LIMIT)
