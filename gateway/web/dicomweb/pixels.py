"""Where the frames of a file lie in it (PS3.5 8, annex A.4): offsets only, no pixel is read."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset

from gateway.decoding import MALFORMED, parsing, read_file
from gateway.elements import DEFLATED
from gateway.errors import GatewayError
from gateway.web.dicomweb.streaming import FileSlice

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
NATIVE = frozenset({IMPLICIT, BIG_ENDIAN, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"})
"""Transfer syntaxes whose pixel data is not encapsulated."""
_PIXEL_TAGS = {
    (0x7FE0, 0x0010): "PixelData",
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
}
_UNDEFINED = 0xFFFFFFFF
_ITEM = (0xFFFE, 0xE000)
_FRAGMENT_LIMIT = 1_000_000
_JPEG_START = b"\xff\xd8"
_J2K_START = b"\xff\x4f"


class NoPixelsError(GatewayError):
    """An instance without pixel data, or with pixel data that cannot be told apart into frames."""

    http_status = 404


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """The pixel data of a file."""

    path: Path
    transfer_syntax_uid: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    number_of_frames: int
    tag: str
    """PixelData, FloatPixelData or DoubleFloatPixelData."""
    vr: str
    offset: int
    """Of the value, in bytes from the beginning of the file."""
    length: int
    """Of a native value."""
    fragments: tuple[tuple[tuple[int, int], ...], ...] = ()
    """Of each frame of encapsulated pixel data: offset and length of its fragments."""

    @property
    def is_encapsulated(self) -> bool:
        """Whether each frame is a compressed stream."""
        return self.transfer_syntax_uid not in NATIVE

    @property
    def frame_bits(self) -> int:
        """Of a native frame."""
        return self.rows * self.columns * self.samples * self.bits_allocated

    def frame(self, index: int) -> Sequence[FileSlice]:
        """Return where frame `index` (from 0) lies; of bit-packed frames, the bytes that hold it."""
        if self.is_encapsulated:
            return [FileSlice(self.path, offset, length) for offset, length in self.fragments[index]]
        first, last = index * self.frame_bits // 8, -(-(index + 1) * self.frame_bits // 8)
        if last > self.length:
            raise NoPixelsError(f"the pixel data ends before frame {index + 1}")
        return [FileSlice(self.path, self.offset + first, last - first)]


@lru_cache(maxsize=512)
def pixel_layout(path: Path, _size_bytes: int) -> PixelLayout:
    """Look where the frames of a file lie; the file's size is given so that another file of its name is looked at anew.

    Raises
    ------
    NoPixelsError
        There is no pixel data, or its frames cannot be told apart; also for a deflated data set.
    """
    try:
        with path.open("rb") as stream, parsing():
            dataset = read_file(stream, stop_before_pixels=True)
            syntax = str(dataset.file_meta.TransferSyntaxUID)
            if syntax in DEFLATED:
                raise NoPixelsError("a deflated instance has no frames of its own: retrieve it as application/dicom")
            return _layout(dataset, syntax, path, stream)
    except MALFORMED as error:
        raise NoPixelsError("the instance cannot be parsed") from error


def _layout(dataset: Dataset, syntax: str, path: Path, stream: BinaryIO) -> PixelLayout:
    found = pixel_element(stream, syntax)
    if found is None:
        raise NoPixelsError("the instance has no pixel data")
    tag, vr, length = found
    offset = stream.tell()
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    fragments: tuple[tuple[tuple[int, int], ...], ...] = ()
    if length == _UNDEFINED:
        fragments = _frames_of(stream, frames, dataset)
        length = 0
    elif syntax not in NATIVE:
        raise NoPixelsError("compressed pixel data is not encapsulated")
    return PixelLayout(
        path,
        syntax,
        int(dataset.Rows),
        int(dataset.Columns),
        int(dataset.get("SamplesPerPixel") or 1),
        {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(tag) or int(dataset.BitsAllocated),
        frames,
        tag,
        vr,
        offset,
        min(length, os.fstat(stream.fileno()).st_size - offset),
        fragments,
    )


def pixel_element(stream: BinaryIO, syntax: str) -> tuple[str, str, int] | None:
    """Read the header of the element that the reading stopped before."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    head = stream.read(8)
    if len(head) < 8:  # noqa: PLR2004 # tag and length, or tag, VR and reserved bytes
        return None
    group, number, length = struct.unpack(f"{order}HHL", head)
    name = _PIXEL_TAGS.get((group, number))
    if name is None:
        return None
    vr = head[4:6]
    if vr in {b"OB", b"OW", b"OF", b"OD", b"UN"}:
        (length,) = struct.unpack(f"{order}L", stream.read(4))
        return name, vr.decode(), length
    return name, "OW", length


def _frames_of(stream: BinaryIO, frames: int, dataset: Dataset) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Walk the items and give each frame its fragments (PS3.5 A.4)."""
    table, fragments = _items(stream)
    if frames == 1:
        return (tuple(fragments),)
    if len(fragments) == frames:
        return tuple((one,) for one in fragments)
    extended = dataset.get("ExtendedOffsetTable")
    starts = struct.unpack(f"<{len(extended) // 8}Q", extended) if extended else table
    if len(starts) != frames and fragments:
        starts = _starts_by_marker(stream, fragments)
    if len(starts) != frames:
        raise NoPixelsError("the frames cannot be told apart: there is no offset table")
    base = fragments[0][0] - 8
    bounds = [*starts, fragments[-1][0] + fragments[-1][1] - base + 1]
    return tuple(tuple(one for one in fragments if start <= one[0] - 8 - base < end) for start, end in pairwise(bounds))


def _items(stream: BinaryIO) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    table: tuple[int, ...] | None = None
    fragments: list[tuple[int, int]] = []
    size = os.fstat(stream.fileno()).st_size
    while len(head := stream.read(8)) == 8:  # noqa: PLR2004 # an item's tag and length
        group, number, length = struct.unpack("<HHL", head)
        if (group, number) != _ITEM or length == _UNDEFINED:
            break
        at = stream.tell()
        if at + length > size or len(fragments) > _FRAGMENT_LIMIT:
            raise NoPixelsError("the encapsulated pixel data is damaged")
        if table is None:
            if length > 4 * _FRAGMENT_LIMIT:
                raise NoPixelsError("the offset table is too long")
            table = struct.unpack(f"<{length // 4}L", stream.read(length)[: length // 4 * 4])
        else:
            fragments.append((at, length))
        stream.seek(at + length)
    return table or (), fragments


def _starts_by_marker(stream: BinaryIO, fragments: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the offsets of the fragments in which a codestream begins."""
    base = fragments[0][0] - 8
    starts = []
    for offset, _ in fragments:
        stream.seek(offset)
        if stream.read(2) in {_JPEG_START, _J2K_START}:
            starts.append(offset - 8 - base)
    return tuple(starts)
