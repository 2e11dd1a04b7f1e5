"""What a compressed frame says about itself: checked before a decoder sees it.

The decoders are C and C++ libraries that allocate what a codestream declares, and one of them aborts the process when
that is more than there is. A frame whose own size is not the one of the DICOM header is therefore never decoded.
"""

from __future__ import annotations

import struct

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

JPEG_SYNTAXES = frozenset({*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes})
J2K_SYNTAXES = frozenset(JPEG2000TransferSyntaxes)
"""HTJ2K among them."""

START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""ISO/IEC 10918-1 table B.1 (SOF0 to SOF15 less DHT, JPG, DAC) and ISO/IEC 14495-1 C.1.1 (SOF55)."""
FILL = 0xFF
STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
J2K_START = b"\xff\x4f\xff\x51"
"""SOC and SIZ, which always follows it (ISO/IEC 15444-1 A.5.1)."""


def check_codestreams(ds: Dataset, rows: int, columns: int) -> None:
    """See that every frame declares one component of the header's size; uncompressed and RLE frames declare nothing.

    Raises
    ------
    ValueError, LookupError, struct.error
        When a frame declares another size or cannot be read that far.
    """
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    if syntax not in JPEG_SYNTAXES | J2K_SYNTAXES:
        return
    options = as_pixel_options(ds)
    frames = generate_frames(
        ds.PixelData,
        number_of_frames=options["number_of_frames"],
        extended_offsets=options.get("extended_offsets"),
    )
    for frame in frames:
        declared = j2k_size(frame) if syntax in J2K_SYNTAXES else jpeg_size(frame)
        if declared != (rows, columns, 1):
            raise ValueError("a frame's size is not the one of the header")


def jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """Return rows, columns and components of a JPEG or JPEG-LS frame from its frame header."""
    offset = frame.index(b"\xff\xd8") + 2
    while True:
        marker, code = frame[offset], frame[offset + 1]
        if marker != FILL:
            raise ValueError("a JPEG marker is missing")
        if code == FILL:
            offset += 1
        elif code in STANDALONE:
            offset += 2
        elif code in START_OF_FRAME:
            rows, columns, components = struct.unpack_from(">HHB", frame, offset + 5)
            return rows, columns, components
        else:
            (length,) = struct.unpack_from(">H", frame, offset + 2)
            offset += 2 + length


def j2k_size(frame: bytes) -> tuple[int, int, int]:
    """Return rows, columns and components of a JPEG 2000 or HTJ2K codestream from its SIZ segment."""
    offset = frame.index(J2K_START) + len(J2K_START)
    right, bottom, left, top = struct.unpack_from(">4I", frame, offset + 4)
    (components,) = struct.unpack_from(">H", frame, offset + 36)
    return bottom - top, right - left, components
