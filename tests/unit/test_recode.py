"""Data sets in another encoding, byte by byte: what stays, what is added, and what is refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from gateway.elements import Encoding
from gateway.errors import CannotUnderstandError
from gateway.query_retrieve.recode import BIG_ENDIAN, EXPLICIT, IMPLICIT, Recoder, recoded


def _sample() -> Dataset:
    inner = Dataset()
    inner.CodeMeaning = "Lunge"
    item = Dataset()
    item.RelatedSeriesSequence = [inner, Dataset()]
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    made.PatientName = "Doe^Jane"
    made.ReferencedSeriesSequence = [item]
    made.PixelRepresentation = 1
    made.SmallestImagePixelValue = -3
    made.RescaleSlope = "1.5"
    made.ExposureTimeInms = 2.25
    made.LUTDescriptor = [4, 0, 16]
    made.add_new(0x00110010, "LO", "MAKER")
    made.add_new(0x00111001, "UN", b"private ")
    made.PixelData = b"\1\0\2\0\3\0\4\0"
    made["PixelData"].VR = "OW"
    return made


def _file(folder: Path, made: Dataset, syntax: str) -> Path:
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    path = folder / f"{syntax}.dcm"
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


@pytest.mark.parametrize("stored", [IMPLICIT, EXPLICIT, BIG_ENDIAN, str(DeflatedExplicitVRLittleEndian)])
@pytest.mark.parametrize("target", [IMPLICIT, EXPLICIT])
def test_values_stay_in_every_encoding(tmp_path: Path, stored: str, target: str) -> None:
    """Numbers, texts, nested sequences, private elements and pixels read the same after any change of encoding."""
    original = _sample()
    if stored == BIG_ENDIAN:
        original.PixelData = b"\0\1\0\2\0\3\0\4"  # pydicom leaves the order of such values to its caller

    data = b"".join(recoded(_file(tmp_path, original, stored), target))

    read = read_dataset(io.BytesIO(data), target == IMPLICIT, True)
    assert {element.tag for element in read} == {element.tag for element in original}
    assert read.PixelData == _sample().PixelData
    assert read.ReferencedSeriesSequence[0].RelatedSeriesSequence[0].CodeMeaning == "Lunge"
    assert len(read.ReferencedSeriesSequence[0].RelatedSeriesSequence) == 2
    assert (read.SmallestImagePixelValue, read.LUTDescriptor, read.ExposureTimeInms) == (-3, [4, 0, 16], 2.25)
    assert (str(read.PatientName), read.RescaleSlope) == ("Doe^Jane", 1.5)
    assert bytes(read[0x00111001].value) == b"private "


def test_a_long_value_of_a_short_vr_becomes_unknown() -> None:
    """What is too long for 16 bits of length goes out as UN in Explicit VR (PS3.5 6.2.2), with all its bytes."""
    element = struct.pack("<HHL", 0x0008, 0x1030, 70000) + b"y" * 70000
    source = io.BufferedReader(io.BytesIO(element))  # type: ignore[arg-type] # reads like a raw stream

    data = b"".join(Recoder(source, Encoding(is_implicit=True), is_implicit=False).chunks())

    assert data == b"\x08\x00\x30\x10UN\0\0" + struct.pack("<L", 70000) + b"y" * 70000


def test_replaced_elements_stand_where_they_belong() -> None:
    """An element of the first level is replaced, a missing one added in its place, one in an item left alone."""
    head = struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 10)
    item = struct.pack("<HHLH", 0x0028, 0x0100, 2, 1)
    rest = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) + struct.pack("<HHLH", 0x0028, 0x0100, 2, 16)
    source = io.BufferedReader(io.BytesIO(head + item + rest))  # type: ignore[arg-type] # reads like a raw stream
    replaced = {0x00280100: (b"US", b"\x08\0"), 0x00280006: (b"US", b"\0\0")}

    data = b"".join(Recoder(source, Encoding(is_implicit=True), is_implicit=True, replaced=replaced).chunks())

    read = read_dataset(io.BytesIO(data), True, True)
    assert (read.BitsAllocated, read.PlanarConfiguration) == (8, 0)
    assert read[0x00081140].value[0].BitsAllocated == 1


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack("<HHL", 0x0010, 0x0010, 100) + b"short",
        struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF),
        struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) * 2000,
        struct.pack("<HHL", 0x7FE0, 0x0010, 0xFFFFFFFF),
        struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE00D, 0),
        (struct.pack("<HHL", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 2000,
    ],
)
def test_a_broken_data_set_is_not_understood(broken: bytes) -> None:
    """A value cut short, an open sequence, delimiters out of place, or nesting without end: an error."""
    source = io.BufferedReader(io.BytesIO(broken))  # type: ignore[arg-type] # reads like a raw stream

    with pytest.raises(CannotUnderstandError):
        list(Recoder(source, Encoding(is_implicit=True), is_implicit=False).chunks())
