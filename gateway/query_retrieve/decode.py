"""Compressed images as uncompressed ones, frame by frame, for peers that accept nothing else (PS3.5 8.2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.decoding import PLUGINS, DecodedFrame, FrameDecoder
from gateway.elements import Encoding, read_elements
from gateway.errors import CannotUnderstandError
from gateway.query_retrieve.recode import IMPLICIT, PIXEL_DATA, Recoder, element_header, opened

DECODABLE = frozenset(PLUGINS)
"""Transfer syntaxes that can be read here."""
_PHOTOMETRIC, _PLANAR, _FRAMES, _ALLOCATED = 0x00280004, 0x00280006, 0x00280008, 0x00280100
_OFFSET_TABLE = 0x7FE00001
_FRAMES_AT_ONCE = 4
_FRAMES_LIMIT = 1 << 20
_LONGEST_VALUE = 0xFFFFFFFE
_BYTE = 8
_COLOUR_DIMENSIONS = 3


def decoded(path: Path, target: str, decoder: FrameDecoder) -> Iterator[bytes]:
    """Yield the data set of a compressed Part 10 file in Explicit or Implicit VR Little Endian; few frames in memory.

    Colour comes out as RGB, pixel by pixel. The data set ends with the pixel data: padding, and signatures, which would
    no longer hold, are left out.

    Raises
    ------
    CannotUnderstandError
        There is no pixel data, or it would be too long for an element.
    UndecodableError
        A frame cannot be decoded, the first or a later one.
    """
    count = _frame_count(path)
    frames = _frames(path, count, decoder)
    first = next(frames)
    pixels = _bytes_of(first)
    size = len(pixels) * count
    if size > _LONGEST_VALUE:
        raise CannotUnderstandError("uncompressed it would be longer than an element can be")
    bits = first.pixels.dtype.itemsize * _BYTE
    replaced = {_ALLOCATED: (b"US", bits.to_bytes(2, "little"))}
    if first.pixels.ndim == _COLOUR_DIMENSIONS:
        name = first.photometric.encode("ascii")
        replaced |= {_PHOTOMETRIC: (b"CS", name + b" " * (len(name) % 2)), _PLANAR: (b"US", b"\0\0")}
    with path.open("rb") as stream:
        _, source = opened(stream)
        is_implicit = target == IMPLICIT
        yield from Recoder(source, Encoding(is_implicit=False), is_implicit, replaced, stop_at=_OFFSET_TABLE).chunks()
    yield element_header(PIXEL_DATA, b"OB" if bits == _BYTE else b"OW", size + size % 2, is_implicit)
    yield pixels
    for frame in frames:
        yield _bytes_of(frame)
    if size % 2:
        yield b"\0"


def _frame_count(path: Path) -> int:
    with path.open("rb") as stream:
        syntax, source = opened(stream)
        elements = read_elements(source, Encoding.of(syntax), {_FRAMES, _ALLOCATED}, last=_ALLOCATED)
    if _ALLOCATED not in elements.values:
        raise CannotUnderstandError("it holds no pixel data")
    if elements.values[_ALLOCATED][:1] == b"\1":
        raise CannotUnderstandError("its single bits would come out as bytes")
    text = elements.values.get(_FRAMES, b"").strip(b" \0") or b"1"
    if not text.isdigit() or not 1 <= int(text[:_BYTE]) <= _FRAMES_LIMIT:
        raise CannotUnderstandError("its number of frames is not one")
    return int(text[:_BYTE])


def _frames(path: Path, count: int, decoder: FrameDecoder) -> Iterator[DecodedFrame]:
    for start in range(0, count, _FRAMES_AT_ONCE):
        yield from decoder.frames(path, range(start, min(start + _FRAMES_AT_ONCE, count)))


def _bytes_of(frame: DecodedFrame) -> bytes:
    return frame.pixels.astype(frame.pixels.dtype.newbyteorder("<"), copy=False).tobytes()
