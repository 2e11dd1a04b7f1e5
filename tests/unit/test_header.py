"""The header of a data set: its fields, its character sets, its bounds."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gateway.elements import DEPTH_LIMIT, Elements, Encoding, Head, read_elements
from gateway.errors import CannotUnderstandError
from gateway.header import InstanceHeader, read_data_set, read_header, valid_uid
from tests.receiving import EXPLICIT, IMPLICIT, encoded, image
from tests.studies import RealData

BIG_ENDIAN = "1.2.840.10008.1.2.2"


def _header(data_set: Dataset, syntax: str = EXPLICIT) -> InstanceHeader:
    return read_data_set(BytesIO(encoded(data_set, syntax)), syntax)


def _element(group: int, number: int, vr: str, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def _named(charset: bytes, name: bytes) -> InstanceHeader:
    """Read a header whose patient name is these bytes, in this character set."""
    head = encoded(image(PatientName=None, PatientID=None))
    cut = head.index(b"\x08\x00\x16\x00")
    tail = head.index(b"\x20\x00\x0d\x00")
    data = _element(0x0008, 0x0005, "CS", charset) if charset else b""
    return read_data_set(BytesIO(data + head[cut:tail] + _element(0x0010, 0x0010, "PN", name) + head[tail:]), EXPLICIT)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_fields_are_read_in_each_encoding(syntax: str) -> None:
    """UIDs, texts, numbers and the announced count, whatever the encoding."""
    data_set = image(NumberOfStudyRelatedInstances=42, InstanceNumber=7, NumberOfFrames=3, SeriesNumber=-5)
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    data_set.IssuerOfAccessionNumberSequence = [issuer]
    data_set.AccessionNumber = "A-1"

    header = _header(data_set, syntax)

    assert header.study_instance_uid == data_set.StudyInstanceUID
    assert (header.study.patient_name, header.study.patient_id) == ("Doe^Jane", "P1")
    assert (header.study.accession_number, header.study.accession_issuer) == ("A-1", "RIS")
    assert (header.study.announced_count, header.instance_number, header.number_of_frames) == (42, 7, 3)
    assert (header.rows, header.columns, header.series.series_number) == (2, 2, -5)


def _read(stream: BinaryIO, syntax: str) -> Elements | str:
    tags = {0x00080005, 0x00080018, 0x00100010, 0x00200011, 0x00280010, 0x00400275}
    try:
        return read_elements(stream, Encoding.of(syntax), tags, last=0x00400275)
    except CannotUnderstandError as error:
        return str(error)


@cache
def _with_sequence(syntax: str, is_undefined_length: bool) -> bytes:
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    data_set = image(SeriesNumber=3, IssuerOfAccessionNumberSequence=[issuer])
    data_set["IssuerOfAccessionNumberSequence"].is_undefined_length = is_undefined_length
    return encoded(data_set, syntax)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_head_in_memory_says_what_a_file_says(data: st.DataObject) -> None:
    """The short way through plain elements and the careful reader agree, whatever was cut, changed or put in."""
    syntax = data.draw(st.sampled_from([IMPLICIT, EXPLICIT, BIG_ENDIAN]))
    encoded_set = bytearray(_with_sequence(syntax, data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(encoded_set) - 1))
        encoded_set[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    whole = bytes(encoded_set[: data.draw(st.integers(0, len(encoded_set)))])

    assert _read(Head(whole, is_whole=True), syntax) == _read(BytesIO(whole), syntax)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on the odd ones
def test_real_files_are_read_as_pydicom_reads_them(real_data: RealData) -> None:
    """On every real and odd file that has all UIDs, the fields are those that pydicom finds."""
    compared = 0
    for path in (path for paths in real_data.studies().values() for path in paths):
        try:
            header = read_header(path)
        except CannotUnderstandError:
            continue
        expected = pydicom.dcmread(path, stop_before_pixels=True)
        name, number = str(expected.get("PatientName", "")), expected.get("InstanceNumber")

        assert header.sop_instance_uid == expected.SOPInstanceUID
        assert header.study_instance_uid == expected.StudyInstanceUID
        assert (header.rows, header.columns) == (expected.get("Rows"), expected.get("Columns"))
        assert (header.study.patient_name, header.instance_number) == (name.strip(), number)
        compared += 1
    assert compared > 50


@pytest.mark.parametrize(
    ("charset", "name", "expected"),
    [
        (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (b"GBK", "Wang^XiaoDong=王^小東".encode("gbk"), "Wang^XiaoDong=王^小東"),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東="),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 144", "Жюли".encode("iso8859_5"), "Жюли"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (
            b"\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东=",
        ),
        (b"", "Müller^Jürgen".encode(), "Müller^Jürgen"),
        (b"", b"M\xfcller", "Müller"),
        (b"ISO_IR 192", b"Bad^\xff\xfe", "Bad^\ufffd\ufffd"),
        (b"NO SUCH SET", b"Plain^Name", "Plain^Name"),
        (b"\\ISO 2022 IR 87", b"A^\x1b$Zrest", "A^rest"),
    ],
)
def test_names_come_out_as_unicode(charset: bytes, name: bytes, expected: str) -> None:
    """The examples of PS3.5 annexes H to K and their neighbours; bad bytes are replaced and refuse nothing."""
    assert _named(charset, name).study.patient_name == expected


def test_texts_fit_their_columns() -> None:
    """Longer values are cut, NUL and control characters go, impossible numbers are none."""
    header = _named(b"", b"A\0B\x07" + b"x" * 5000)

    assert header.study.patient_name.startswith("A B x")
    assert len(header.study.patient_name) == 1024


@pytest.mark.parametrize("text", [b"abc", b"99999999999", b"", b"1e400"])
def test_a_number_that_is_none_is_left_out(text: bytes) -> None:
    """A broken Instance Number refuses nothing and reaches no integer column."""
    head = encoded(image(Rows=None, Columns=None))

    assert read_data_set(BytesIO(head + _element(0x0020, 0x0013, "IS", text)), EXPLICIT).instance_number is None


def test_deflated_data_sets_are_read() -> None:
    """A data set deflated as a whole is inflated for its header alone."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data_set = image()
    data = deflater.compress(encoded(data_set)) + deflater.flush()

    assert read_data_set(BytesIO(data), DeflatedExplicitVRLittleEndian).sop_instance_uid == data_set.SOPInstanceUID
    with pytest.raises(CannotUnderstandError):
        read_data_set(BytesIO(b"\xff" * 100), DeflatedExplicitVRLittleEndian)


def test_what_lies_behind_the_header_is_not_read() -> None:
    """Reading ends before the pixel data: few bytes are touched of a data set that announces four gigabytes."""
    stream = _Counting(encoded(image(BitsAllocated=8)) + b"\xe0\x7f\x10\x00OW\0\0\xf0\xff\xff\xff" + bytes(100_000))

    read_data_set(stream, EXPLICIT)

    assert stream.touched < 2000


class _Counting(BytesIO):
    touched = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Count what is read."""
        data = super().read(size)
        self.touched += len(data)
        return data


def _nested(depth: int) -> bytes:
    opened = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return opened * depth + closed * depth


def test_nesting_is_followed_as_far_as_it_is_bearable() -> None:
    """Sequences within sequences are skipped; beyond the limit the data set is not understood. The stack is safe."""
    head = encoded(image())
    cut = head.index(b"\x10\x00\x10\x00")

    deep = read_data_set(BytesIO(head[:cut] + _nested(200) + head[cut:]), EXPLICIT)
    with pytest.raises(CannotUnderstandError):
        read_data_set(BytesIO(head[:cut] + _nested(DEPTH_LIMIT * 40) + head[cut:]), EXPLICIT)

    assert deep.study.patient_id == "P1"


@pytest.mark.parametrize("uid", ["", "1.2.x", "1..2", ".1", "1.", "1." + "2" * 64, "1.2\n"])
def test_what_is_no_uid_is_refused(uid: str) -> None:
    """Missing, with other characters, with empty components, or too long (PS3.5 9.1)."""
    with pytest.raises(CannotUnderstandError):
        valid_uid(uid, "Study Instance UID")


def test_no_prefix_of_a_data_set_raises_anything_else() -> None:
    """Cut anywhere, a data set is read or not understood."""
    data_set = image()
    data_set.IssuerOfAccessionNumberSequence = [Dataset()]
    whole = encoded(data_set, IMPLICIT)

    for end in range(len(whole)):
        try:
            read_data_set(BytesIO(whole[:end]), IMPLICIT)
        except CannotUnderstandError as error:
            assert str(data_set.PatientName) not in error.comment


def test_a_file_without_meta_information_is_no_dicom_file(tmp_path: Path) -> None:
    """Preamble, prefix and transfer syntax must be there."""
    path = tmp_path / "x.dcm"
    path.write_bytes(bytes(128) + b"DICM")

    with pytest.raises(CannotUnderstandError):
        read_header(path)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_the_procedure_step_is_read_behind_the_image_module(syntax: str) -> None:
    """Performed step and the first item of Request Attributes, whatever stands between and whatever is missing."""
    first, second = Dataset(), Dataset()
    first.ScheduledProcedureStepID, first.RequestedProcedureID = "S1", "R1"
    second.ScheduledProcedureStepID = "S2"
    asked = {"PerformedProcedureStepStartDate": "20260302", "PerformedProcedureStepStartTime": "101500.5"}
    lut = {"RedPaletteColorLookupTableData": bytes(1024)}

    full = _header(image(**asked, **lut, RequestAttributesSequence=[first, second]), syntax).series
    bare = _header(image(RequestAttributesSequence=[Dataset()]), syntax).series

    assert (full.performed_date, full.performed_time) == ("20260302", "101500.5")
    assert (full.scheduled_step_id, full.requested_procedure_id) == ("S1", "R1")
    assert (bare.performed_date, bare.scheduled_step_id, bare.requested_procedure_id) == ("", "", "")
