"""One Part 10 file -> its header, read without trust.

Headers come from outside. Every number taken from one goes through `numbers` or `whole`, which answer with a finite
value, with None (absent), or with NotEvaluableError; nothing of an attribute's text enters a reason.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

from inference.errors import NotEvaluableError

MALFORMED = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and its decoders raise on data they cannot read. OSError is not among them: a disk fault may pass."""

PREAMBLE_BYTES = 132
GROUP_LENGTH_ELEMENT_BYTES = 12
INFLATE_STEP_BYTES = 1 << 20


def read_header(path: Path, limit_bytes: int) -> Dataset:
    """Read all elements before the pixel data.

    Parameters
    ----------
    path
        A DICOM Part 10 file.
    limit_bytes
        Upper bound of the file's size, deflated files counted at their inflated size.

    Raises
    ------
    NotEvaluableError
        'series.unreadable' or 'pixels.too-large'.
    """
    try:
        _check_size(path, limit_bytes)
        return pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, *MALFORMED) as error:
        if _is_of_disk(error):
            raise
        raise _unreadable(error) from None


def read_instance(path: Path) -> Dataset:
    """Read a file whole, pixel data included; `read_header` has accepted it before."""
    try:
        return pydicom.dcmread(path)
    except (OSError, *MALFORMED) as error:
        if _is_of_disk(error):
            raise
        raise _unreadable(error) from None


def _is_of_disk(error: Exception) -> bool:
    """Say whether an error tells of the disk: pydicom raises an OSError without a number where a sequence is broken."""
    return isinstance(error, OSError) and error.errno is not None


def text(ds: Dataset, keyword: str) -> str:
    """Return the attribute as text, several values joined by a backslash, '' when absent or malformed."""
    try:
        value = ds.get(keyword)
    except MALFORMED:
        return ""
    if value is None:
        return ""
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(str(v).strip() for v in value)
    return str(value).strip()


def numbers(ds: Dataset, keyword: str, count: int, code: str) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, None when the attribute is absent or empty.

    Raises
    ------
    NotEvaluableError
        With `code`, when the attribute holds another count, no numbers, NaN or infinity.
    """
    try:
        value = ds.get(keyword)
        if value is None or value == "" or (isinstance(value, MultiValue) and not value):
            return None
        values = tuple(float(v) for v in (value if isinstance(value, MultiValue | list | tuple) else [value]))
    except MALFORMED:
        raise NotEvaluableError(code, f"{keyword} cannot be read as numbers.") from None
    if len(values) != count:
        raise NotEvaluableError(code, f"{keyword} holds {len(values)} values, expected {count}.")
    if not all(math.isfinite(v) for v in values):
        raise NotEvaluableError(code, f"{keyword} holds a value that is not a finite number.")
    return values


def number(ds: Dataset, keyword: str, code: str) -> float | None:
    """Return one finite number, None when the attribute is absent or empty; errors as in `numbers`."""
    values = numbers(ds, keyword, 1, code)
    return None if values is None else values[0]


def whole(ds: Dataset, keyword: str, code: str) -> int | None:
    """Return one whole number, None when the attribute is absent or empty; errors as in `numbers`."""
    value = number(ds, keyword, code)
    if value is None:
        return None
    if value != int(value):
        raise NotEvaluableError(code, f"{keyword} is not a whole number.")
    return int(value)


def item(ds: Dataset, keyword: str, index: int = 0) -> Dataset | None:
    """Return one item of a sequence, None when the sequence or the item is not there."""
    try:
        sequence = ds.get(keyword)
        return None if not sequence or index >= len(sequence) else sequence[index]
    except (OSError, *MALFORMED):  # of what is in memory already: no disk is asked
        return None


def transfer_syntax(ds: Dataset) -> str:
    """Return the name of the transfer syntax, which carries no patient data, or 'an unknown transfer syntax'."""
    uid = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    return uid.name if uid else "an unknown transfer syntax"


def _check_size(path: Path, limit_bytes: int) -> None:
    """Refuse a file above the limit; count what a deflated one inflates to, without keeping it (PS3.5 A.5)."""
    if path.stat().st_size > limit_bytes:
        raise _too_large(limit_bytes)
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    start = PREAMBLE_BYTES + GROUP_LENGTH_ELEMENT_BYTES + int(meta.FileMetaInformationGroupLength)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    with path.open("rb") as file:
        file.seek(start)
        while not inflater.eof:
            packed = inflater.unconsumed_tail or file.read(INFLATE_STEP_BYTES)
            if not packed:
                break
            total += len(inflater.decompress(packed, INFLATE_STEP_BYTES))
            if total > limit_bytes:
                raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> NotEvaluableError:
    return NotEvaluableError("pixels.too-large", f"An instance is larger than the limit of {limit_bytes >> 20} MiB.")


def _unreadable(error: BaseException) -> NotEvaluableError:
    reason = f"An instance of the series cannot be read as a DICOM file ({type(error).__name__})."
    return NotEvaluableError("series.unreadable", reason)
