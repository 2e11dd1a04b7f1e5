"""The leading elements of an encoded data set (PS3.5 chapter 7), read without recursion and within bounds.

A receiver reads what strangers send. So nesting costs a list entry and no stack frame, values are cut at
`VALUE_LIMIT`, and a data set that needs more than `ELEMENT_LIMIT` steps is not understood.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Set
from dataclasses import dataclass
from typing import BinaryIO

from gateway.errors import CannotUnderstandError

VALUE_LIMIT = 1 << 16
"""Bytes of a value that are kept; the rest is skipped."""
ELEMENT_LIMIT = 500_000
"""Elements, items and delimiters looked at before a data set counts as not understood."""
DEPTH_LIMIT = 512
"""Open sequences and items of undefined length."""
INFLATED_LIMIT = 1 << 24
"""Bytes of a deflated data set that are inflated to read its header."""

DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Transfer syntaxes whose data set is deflated as a whole (PS3.5 A.5)."""
_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT_LENGTH_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # PS3.5 table 7.1-2
)
_LONG_LENGTH_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # PS3.5 table 7.1-1
_CHUNK = 1 << 16
_TAG_LONG, _TAG_VR_SHORT = struct.Struct("<HHL").unpack_from, struct.Struct("<HH2sH").unpack_from
_LONG = struct.Struct("<L").unpack_from


class HeadEndedError(Exception):
    """The reading needs more of a data set than its head."""


class Head(io.BytesIO):
    """The first bytes of a data set; reading beyond them raises HeadEndedError.

    Parameters
    ----------
    data
        The bytes.
    is_whole
        Whether there are no others: then reading beyond them meets the end.
    """

    def __init__(self, data: bytes | bytearray, is_whole: bool) -> None:
        self.data = bytes(data)
        super().__init__(self.data)
        self._is_whole = is_whole

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes."""
        data = super().read(size)
        if not self._is_whole and len(data) != size:
            raise HeadEndedError
        return data


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a data set is encoded, its compression aside."""

    is_implicit: bool
    is_little_endian: bool = True

    @classmethod
    def of(cls, transfer_syntax_uid: str) -> Encoding:
        """Return the encoding of a transfer syntax; all but two are Explicit VR Little Endian (PS3.5 annex A)."""
        return cls(transfer_syntax_uid == _IMPLICIT, transfer_syntax_uid != _BIG_ENDIAN)


@dataclass(frozen=True, slots=True)
class Elements:
    """What was found."""

    values: dict[int, bytes]
    """Tag -> encoded value, at most `VALUE_LIMIT` bytes of it; a sequence's value is its encoded items."""
    encoding: Encoding
    """The encoding met, which may differ from the one announced."""

    def item(self, tag: int, wanted: Set[int]) -> Elements:
        """Return the wanted elements of a sequence's first item; empty where there is none."""
        value = self.values.get(tag, b"")
        reader = _Reader(io.BytesIO(value), self.encoding)
        first = reader.tag_and_length()
        if first is None or first[0] != _ITEM:
            return Elements({}, self.encoding)
        return read_elements(io.BytesIO(value[8:]), self.encoding, wanted, last=_ITEM - 1)


def read_elements(stream: BinaryIO, encoding: Encoding, wanted: Set[int], last: int) -> Elements:
    """Read the top-level elements from where the stream stands.

    Parameters
    ----------
    stream
        Seekable; left somewhere behind the elements read.
    encoding
        The announced encoding; implicit and explicit VR mixed up by the sender are told apart.
    wanted
        Tags whose values are returned.
    last
        The reading ends before the first tag above this one.

    Raises
    ------
    CannotUnderstandError
        Nested too deeply or too many elements. A data set that merely ends early is read as far as it goes.
    """
    reader = _Reader(stream, _met_encoding(stream, encoding))
    is_implicit = reader.encoding.is_implicit
    in_memory = stream.data if isinstance(stream, Head) and reader.encoding.is_little_endian else b""
    values: dict[int, bytes] = {}
    while True:
        if in_memory:
            stream.seek(_skim(in_memory, stream.tell(), is_implicit, wanted, last, values))
        header = reader.element(is_implicit)
        if header is None:
            break
        tag, vr, length = header
        if tag > last:
            break
        start = stream.tell()
        if length != _UNDEFINED:
            if tag in wanted:
                values[tag] = stream.read(min(length, VALUE_LIMIT))
            stream.seek(start + length)
        else:
            reader.skip_undefined(vr)
            if tag in wanted:
                end = stream.tell()
                stream.seek(start)
                values[tag] = stream.read(min(end - start, VALUE_LIMIT))
                stream.seek(end)
    return Elements(values, reader.encoding)


def inflated(stream: BinaryIO) -> BinaryIO:
    """Return the beginning of a deflated data set (RFC 1951, without zlib's header), at most `INFLATED_LIMIT` bytes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = bytearray()
    try:
        while len(plain) < INFLATED_LIMIT and not inflater.eof:
            chunk = inflater.unconsumed_tail or stream.read(_CHUNK)
            if not chunk:
                break
            plain += inflater.decompress(chunk, INFLATED_LIMIT - len(plain))
    except zlib.error as error:
        raise CannotUnderstandError("the deflated data set cannot be inflated") from error
    return io.BytesIO(plain)


def _skim(  # noqa: PLR0913, PLR0917 # the inside of a loop that each instance goes through
    data: bytes, at: int, is_implicit: bool, wanted: Set[int], last: int, values: dict[int, bytes]
) -> int:
    """Take the plain elements from `at` on; return where one begins that needs a closer look, or where they end.

    Plain is: little endian, a known VR or implicit VR, a defined length, and where it is wanted, all of it there.
    """
    size = len(data)
    while at + 12 <= size:
        start = at + 8
        if is_implicit:
            group, number, length = _TAG_LONG(data, at)
        else:
            group, number, vr, length = _TAG_VR_SHORT(data, at)
            if vr not in _SHORT_LENGTH_VRS:
                if vr not in _LONG_LENGTH_VRS:
                    break
                (length,) = _LONG(data, start)
                start += 4
        tag = group << 16 | number
        if tag > last or length == _UNDEFINED:
            break
        if tag in wanted:
            if start + length > size or length > VALUE_LIMIT:
                break
            values[tag] = data[start : start + length]
        at = start + length
    return at


def _met_encoding(stream: BinaryIO, announced: Encoding) -> Encoding:
    """Look at the first element: a known VR in implicit VR, or none in explicit VR, means the other one."""
    start = stream.tell()
    head = stream.read(8)
    stream.seek(start)
    if len(head) < 8:  # noqa: PLR2004 # tag, VR and length of an element
        return announced
    has_vr = head[4:6].isalpha() and head[4:6].isupper()
    if has_vr == announced.is_implicit:
        return Encoding(not has_vr, announced.is_little_endian)
    return announced


class _Reader:
    """Element headers of a stream, counted."""

    def __init__(self, stream: BinaryIO, encoding: Encoding) -> None:
        self.encoding = encoding
        self._stream = stream
        order = "<" if encoding.is_little_endian else ">"
        self._tag_long = struct.Struct(f"{order}HHL").unpack
        self._tag_vr_short = struct.Struct(f"{order}HH2sH").unpack
        self._long = struct.Struct(f"{order}L").unpack
        self._seen = 0

    def element(self, is_implicit: bool) -> tuple[int, bytes | None, int] | None:
        """Return tag, VR (None: implicit) and length of the next element; None at the end of the data."""
        raw = self._next()
        if raw is None:
            return None
        vr = raw[4:6]
        if is_implicit or raw[:2] in (b"\xfe\xff", b"\xff\xfe") or not (vr.isalpha() and vr.isupper()):
            group, number, length = self._tag_long(raw)
            return group << 16 | number, None, length
        group, number, vr, length = self._tag_vr_short(raw)
        if vr not in _SHORT_LENGTH_VRS:
            more = self._stream.read(4)
            if len(more) < 4:  # noqa: PLR2004 # the 32-bit length of PS3.5 table 7.1-1
                return None
            (length,) = self._long(more)
        return group << 16 | number, vr, length

    def tag_and_length(self) -> tuple[int, int] | None:
        """Return tag and length of an item or delimiter; None at the end of the data."""
        raw = self._next()
        if raw is None:
            return None
        group, number, length = self._tag_long(raw)
        return group << 16 | number, length

    def skip_undefined(self, vr: bytes | None) -> None:
        """Skip a value of undefined length: a sequence, or fragments. Within UN, all is implicit VR (PS3.5 6.2.2)."""
        is_implicit = self.encoding.is_implicit or vr == b"UN"
        open_values = [is_implicit]
        while open_values:
            header = self.element(open_values[-1])
            if header is None:
                return
            tag, inner_vr, length = header
            if tag in (_ITEM_END, _SEQUENCE_END):
                open_values.pop()
            elif length == _UNDEFINED:
                open_values.append(open_values[-1] or inner_vr == b"UN")
            else:
                self._stream.seek(length, io.SEEK_CUR)
            if len(open_values) > DEPTH_LIMIT:
                raise CannotUnderstandError("sequences are nested too deeply")

    def _next(self) -> bytes | None:
        self._seen += 1
        if self._seen > ELEMENT_LIMIT:
            raise CannotUnderstandError("too many elements before the image")
        raw = self._stream.read(8)
        return raw if len(raw) == 8 else None  # noqa: PLR2004 # every element begins with eight bytes
