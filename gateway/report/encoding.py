"""Data sets as Part 10 files, Explicit VR Little Endian, byte for byte as pydicom writes them, sequences much faster.

A segmentation of a hundred planes holds thousands of small items. pydicom makes a buffer for each of their elements and
looks up the character set anew each time; a PACS waits for that.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import pydicom
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import writers
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, EXPLICIT_VR_LENGTH_32, VR

_CHARACTER_SET = 0x00080005
_DEFAULT_CHARACTER_SET = "iso8859"
_META = 144
"""Where the file meta information begins after its group length, which counts from there (PS3.10 7.1)."""
_ITEM = b"\xfe\xff\x00\xe0"
_LONGEST_SHORT = 0xFFFF
_UNDEFINED = 0xFFFFFFFF
_VR_LENGTH = 2
"""Longer are those that depend on other elements ('US or SS')."""
_PLAIN = frozenset({VR.CS, VR.UI})
"""Text of the default character set, written as it stands."""


class _UnusualError(Exception):
    """A sequence that is left to pydicom."""


def encode_file(dataset: Dataset) -> bytes:
    """Return a data set with its file meta information as a file; it has lost its sequences afterwards."""
    sequences = _taken_sequences(dataset)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    file = buffer.getvalue()
    (meta_length,) = struct.unpack_from("<L", file, _META - 4)
    return b"".join(_merged(file, _META + meta_length, sequences))


def _taken_sequences(dataset: Dataset) -> dict[int, bytes]:
    """Take the sequences out of a data set, all but unusual ones, and return them encoded, by their tags.

    None is taken where an element has no length, for then a reader of the rest does not find its way.
    """
    if any(_is_endless(dataset.get_item(tag)) for tag in dataset.keys()):  # noqa: SIM118 # a data set yields elements
        return {}
    encodings = convert_encodings(dataset.get("SpecificCharacterSet") or _DEFAULT_CHARACTER_SET)
    taken: dict[int, bytes] = {}
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, DataElement) and element.VR == VR.SQ:
            try:
                taken[tag] = _element(element, encodings)
            except _UnusualError:
                continue
            del dataset[tag]
    return taken


def _merged(file: bytes, start: int, sequences: Mapping[int, bytes]) -> Iterator[bytes]:
    """Yield a file with sequences put into it where their tags belong (PS3.5 7.1: ascending)."""
    waiting = sorted(sequences.items())
    written = position = start
    yield file[:start]
    while waiting and position < len(file):
        group, number = struct.unpack_from("<HH", file, position)
        while waiting and waiting[0][0] < group << 16 | number:
            yield file[written:position]
            written = position
            yield waiting.pop(0)[1]
        position = _next_element(file, position)
    yield file[written:]
    yield from (content for _, content in waiting)


def _next_element(file: bytes, position: int) -> int:
    """Return where the element after this one begins."""
    if file[position + 4 : position + 6].decode("ascii") not in EXPLICIT_VR_LENGTH_32:
        return position + 8 + int(struct.unpack_from("<H", file, position + 6)[0])
    return position + 12 + int(struct.unpack_from("<L", file, position + 8)[0])


def _is_endless(element: DataElement | RawDataElement) -> bool:
    return element.length == _UNDEFINED if isinstance(element, RawDataElement) else element.is_undefined_length


def _sequence(items: Sequence[Dataset], encodings: Sequence[str]) -> bytes:
    parts: list[bytes] = []
    for item in items:
        if getattr(item, "is_undefined_length_sequence_item", False) or _CHARACTER_SET in item:
            raise _UnusualError
        content = b"".join(_element(item.get_item(tag), encodings) for tag in sorted(item.keys()))
        parts += (_ITEM, struct.pack("<L", len(content)), content)
    return b"".join(parts)


def _element(element: DataElement | RawDataElement, encodings: Sequence[str]) -> bytes:
    if element.tag.element == 0:  # a group length, which is not written
        raise _UnusualError
    vr = element.VR
    if vr not in writers or len(vr) != _VR_LENGTH:
        raise _UnusualError
    value = _raw_value(element) if isinstance(element, RawDataElement) else _value(element, encodings)
    start = struct.pack("<HH", element.tag.group, element.tag.element) + str(vr).encode()
    if vr in EXPLICIT_VR_LENGTH_32:
        return start + b"\0\0" + struct.pack("<L", len(value)) + value
    if len(value) > _LONGEST_SHORT:
        raise _UnusualError
    return start + struct.pack("<H", len(value)) + value


def _raw_value(element: RawDataElement) -> bytes:
    value = element.value
    if element.VR == VR.SQ or element.length == _UNDEFINED or not element.is_little_endian:
        raise _UnusualError
    if value is None or len(value) % 2:  # of a source that breaks PS3.5 7.1
        raise _UnusualError
    return value


def _value(element: DataElement, encodings: Sequence[str]) -> bytes:
    vr, value = element.VR, element.value
    if vr == VR.SQ:
        if element.is_undefined_length:
            raise _UnusualError
        return _sequence(value, encodings)
    if vr in _PLAIN and isinstance(value, str) and value.isascii():
        text = value.encode("ascii")
        return text if len(text) % 2 == 0 else text + (b"\0" if vr == VR.UI else b" ")
    if element.is_buffered or element.is_undefined_length:
        raise _UnusualError
    if element.is_empty:
        return b""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    writer, number_format = writers[VR(vr)]
    write = cast("Callable[..., None]", writer)
    if vr in CUSTOMIZABLE_CHARSET_VR:
        write(buffer, element, encodings=list(encodings))
    elif number_format is not None:
        write(buffer, element, number_format)
    else:
        write(buffer, element)
    return buffer.getvalue()
