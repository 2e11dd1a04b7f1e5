"""A stored data set in another uncompressed transfer syntax, byte by byte as it is read: values stay what they are.

Nothing is parsed that need not be, so an object that some library would refuse goes out as it came in, and the memory
taken does not depend on the object's size. Sequences and items get undefined lengths, group lengths are left out
(PS3.5 7.2, 7.5).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from pydicom.datadict import dictionary_VR

from gateway.elements import DEFLATED, DEPTH_LIMIT, Encoding
from gateway.errors import CannotUnderstandError
from gateway.header import read_part10

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RECODABLE = frozenset({IMPLICIT, EXPLICIT, BIG_ENDIAN, "1.2.840.10008.1.2.1.99"})
"""Transfer syntaxes that can be read here; those that can be written are the first two."""
PIXEL_DATA = 0x7FE00010
_PIXEL_REPRESENTATION = 0x00280103
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONGEST_SHORT = 0xFFFF
_CHUNK = 1 << 18
_GROUP_LENGTH = 0x0000FFFF
_SHORT_LENGTH_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # PS3.5 table 7.1-2
)
_SWAPPED = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OL", b"OF"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
"""VR -> bytes of a unit whose order depends on the transfer syntax (PS3.5 7.3)."""


class Source(Protocol):
    """What is read from: forward only, and a look ahead."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end."""

    def peek(self, size: int, /) -> bytes:
        """Return some of what comes next, without passing it."""


@dataclass(slots=True)
class _Open:
    """A sequence or item that is being read."""

    end: int | None
    """Offset of its end; None: a delimiter ends it."""
    is_implicit: bool
    is_item: bool


@dataclass(slots=True)
class Recoder:
    """Reads a data set and yields it in Explicit or Implicit VR Little Endian.

    Parameters
    ----------
    source
        Stands at the first element.
    encoding
        Of the source, as met.
    is_implicit
        Whether the result is Implicit VR.
    replaced
        Tag -> VR and value, of elements of the first level that are to be otherwise, or added.
    stop_at
        The reading ends before this tag of the first level.
    """

    source: Source
    encoding: Encoding
    is_implicit: bool
    replaced: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    stop_at: int = _ITEM
    _offset: int = 0
    _is_signed: bool = False
    _open: list[_Open] = field(default_factory=list)

    def chunks(self) -> Iterator[bytes]:
        """Yield the encoded data set.

        Raises
        ------
        CannotUnderstandError
            The data set ends within an element, or is nested too deeply.
        """
        added = sorted(self.replaced)
        while True:
            yield from self._closed()
            head = self._tag()
            if not self._open:
                upto = min(self.stop_at if head is None else head, self.stop_at)
                while added and added[0] <= upto:
                    tag = added.pop(0)
                    yield self._header(tag, self.replaced[tag][0], len(self.replaced[tag][1]))
                    yield self.replaced[tag][1]
                if head is None or head >= self.stop_at:
                    return
            elif head is None:
                raise CannotUnderstandError("the data set ends within a sequence")
            yield from self._element(head)

    def _tag(self) -> int | None:
        raw = self._read(4)
        if len(raw) < 4:  # noqa: PLR2004 # a tag
            return None
        group, number = struct.unpack(self._order("HH"), raw)
        return int(group) << 16 | int(number)

    def _element(self, tag: int) -> Iterator[bytes]:
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            yield from self._delimiter(tag)
            return
        is_implicit = self._open[-1].is_implicit if self._open else self.encoding.is_implicit
        vr, length = self._vr_and_length(tag, is_implicit)
        is_replaced = not self._open and tag in self.replaced
        if length == _UNDEFINED and tag == PIXEL_DATA:
            raise CannotUnderstandError("fragments of pixel data in an uncompressed transfer syntax")
        if length == _UNDEFINED or vr == b"SQ":
            if len(self._open) > DEPTH_LIMIT:
                raise CannotUnderstandError("sequences are nested too deeply")
            # What is of undefined length is a sequence; in UN it is encoded in Implicit VR (PS3.5 6.2.2).
            end = None if length == _UNDEFINED else self._offset + length
            self._open.append(_Open(end, is_implicit or vr == b"UN", is_item=False))
            yield self._header(tag, b"SQ", _UNDEFINED)
        elif is_replaced or not tag & _GROUP_LENGTH:
            for _ in self._value(length):
                continue
        elif tag == _PIXEL_REPRESENTATION:
            value = b"".join(self._value(length, 2))
            self._is_signed = value[:1] == b"\1"
            yield self._header(tag, vr, len(value)) + value
        else:
            yield self._header(tag, vr, length)
            yield from self._value(length, 1 if self.encoding.is_little_endian else _SWAPPED.get(vr, 1))

    def _vr_and_length(self, tag: int, is_implicit: bool) -> tuple[bytes, int]:
        if is_implicit:
            return self._vr_of(tag), int(struct.unpack(self._order("L"), self._exactly(4))[0])
        vr = self._exactly(2)
        if not _is_vr(vr):  # a single element in Implicit VR, as some senders mix them in
            return self._vr_of(tag), int(struct.unpack(self._order("L"), vr + self._exactly(2))[0])
        if vr in _SHORT_LENGTH_VRS:
            return vr, int(struct.unpack(self._order("H"), self._exactly(2))[0])
        self._exactly(2)
        return vr, int(struct.unpack(self._order("L"), self._exactly(4))[0])

    def _vr_of(self, tag: int) -> bytes:
        """Return the VR of an element in Implicit VR (PS3.5 A.1); UN where the dictionary does not know it."""
        if (tag >> 16) % 2:
            is_creator = 0x10 <= tag & 0xFFFF <= 0xFF  # noqa: PLR2004 # PS3.5 7.8.1
            return b"LO" if is_creator else b"UN"
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return b"UN"
        if " or " not in vr:
            return vr.encode("ascii")
        if "OW" in vr:
            return b"OW"
        return b"SS" if self._is_signed else b"US"

    def _delimiter(self, tag: int) -> Iterator[bytes]:
        length = int(struct.unpack(self._order("L"), self._exactly(4))[0])
        if tag == _ITEM:
            if not self._open or self._open[-1].is_item:
                raise CannotUnderstandError("an item outside a sequence")
            end = None if length == _UNDEFINED else self._offset + length
            self._open.append(_Open(end, self._open[-1].is_implicit, is_item=True))
            yield _header(_ITEM, _UNDEFINED)
        elif not self._open or self._open[-1].is_item != (tag == _ITEM_END):
            raise CannotUnderstandError("a delimiter without its beginning")
        else:
            yield self._end()

    def _closed(self) -> Iterator[bytes]:
        """Yield the delimiters of what has reached its end."""
        while self._open and self._open[-1].end is not None and self._offset >= self._open[-1].end:
            yield self._end()

    def _end(self) -> bytes:
        return _header(_ITEM_END if self._open.pop().is_item else _SEQUENCE_END, 0)

    def _header(self, tag: int, vr: bytes, length: int) -> bytes:
        return element_header(tag, vr, length, self.is_implicit)

    def _value(self, length: int, unit: int = 1) -> Iterator[bytes]:
        unit = 1 if self.encoding.is_little_endian else unit
        while length > 0:
            chunk = self._read(min(length, _CHUNK))
            if not chunk or (len(chunk) < min(length, _CHUNK)):
                raise CannotUnderstandError("the data set ends within an element")
            length -= len(chunk)
            yield chunk if unit == 1 else _swapped(chunk, unit)

    def _exactly(self, size: int) -> bytes:
        raw = self._read(size)
        if len(raw) < size:
            raise CannotUnderstandError("the data set ends within an element")
        return raw

    def _read(self, size: int) -> bytes:
        raw = self.source.read(size)
        self._offset += len(raw)
        return raw

    def _order(self, form: str) -> str:
        return f"{'<' if self.encoding.is_little_endian else '>'}{form}"


def element_header(tag: int, vr: bytes, length: int, is_implicit: bool) -> bytes:
    """Return tag, VR and length of an element in little endian."""
    if is_implicit:
        return _header(tag, length)
    if vr in _SHORT_LENGTH_VRS and length > _LONGEST_SHORT:
        vr = b"UN"  # PS3.5 6.2.2
    if vr in _SHORT_LENGTH_VRS:
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, length)


def recoded(path: Path, target: str) -> Iterator[bytes]:
    """Yield the data set of a Part 10 file in Explicit or Implicit VR Little Endian.

    Raises
    ------
    CannotUnderstandError
        The file is not what its transfer syntax says, or ends early.
    """
    with path.open("rb") as stream:
        syntax, source = opened(stream)
        yield from Recoder(source, met_encoding(source, syntax), target == IMPLICIT).chunks()


def opened(stream: io.BufferedReader) -> tuple[str, io.BufferedReader]:
    """Return the transfer syntax of a Part 10 file and its data set, inflated where it is deflated."""
    part10 = read_part10(stream)
    stream.seek(part10.data_set_offset)
    if part10.transfer_syntax_uid not in DEFLATED:
        return part10.transfer_syntax_uid, stream
    return part10.transfer_syntax_uid, io.BufferedReader(_Inflating(stream), _CHUNK)


def met_encoding(source: Source, syntax: str) -> Encoding:
    """Return the encoding of a data set; senders mix up implicit and explicit VR, and the first element tells."""
    announced, vr = Encoding.of(syntax), source.peek(6)[4:6]
    return Encoding(not _is_vr(vr), announced.is_little_endian) if len(vr) == 2 else announced  # noqa: PLR2004 # a VR


class _Inflating(io.RawIOBase):
    """A deflated data set (RFC 1951) as it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # a writable buffer
        while not self._inflater.eof:
            deflated = self._inflater.unconsumed_tail or self._stream.read(_CHUNK)
            if not deflated:
                break
            try:
                plain = self._inflater.decompress(deflated, len(buffer))
            except zlib.error as error:
                raise CannotUnderstandError("the deflated data set cannot be inflated") from error
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
        return 0


def _is_vr(two: bytes) -> bool:
    return two.isalpha() and two.isupper()


def _header(tag: int, length: int) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)


def _swapped(chunk: bytes, unit: int) -> bytes:
    """Return units in the other byte order; chunks are a multiple of each unit, but for a broken value's rest."""
    whole = bytearray(chunk)
    usable = len(chunk) - len(chunk) % unit
    for at in range(unit):
        whole[at:usable:unit] = chunk[unit - 1 - at : usable : unit]
    return bytes(whole)
