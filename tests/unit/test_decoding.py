"""Files of strangers are read, and frames decoded, within bounds of memory."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from gateway.decoding import DecoderDiedError, FrameDecoder, read_file
from gateway.rejection import KEY_OBJECT_SELECTION, read_note

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
MIB = 1 << 20


def deflated_note(target: Path, padding: int, garbage: bytes = b"") -> Path:
    """Write a deflated Key Object Selection with so many zeros at its end, and with bytes that do not inflate."""
    note = Dataset()
    note.SOPClassUID, note.SOPInstanceUID = KEY_OBJECT_SELECTION, "1.2.3"
    note.StudyInstanceUID = note.SeriesInstanceUID = "1.2"
    plain = DicomBytesIO()
    plain.is_little_endian, plain.is_implicit_VR = True, False
    write_dataset(plain, note)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(KEY_OBJECT_SELECTION), UID("1.2.3")
    head = DicomBytesIO()
    head.is_little_endian, head.is_implicit_VR = True, False
    write_file_meta_info(head, meta)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflater.compress(plain.getvalue() + struct.pack("<HH2sHL", 0x0042, 0x0011, b"OB", 0, padding))
    for _ in range(padding // MIB):
        packed += deflater.compress(bytes(MIB))
    packed += deflater.flush(zlib.Z_FULL_FLUSH) + garbage if garbage else deflater.flush()
    target.write_bytes(bytes(128) + b"DICM" + head.getvalue() + packed)
    return target


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    """A file whose data set is longer than the bound is malformed; within the bound it is read."""
    bomb = deflated_note(tmp_path / "bomb.dcm", 8 * MIB)

    assert bomb.stat().st_size < MIB
    assert read_file(bomb, most_inflated=9 * MIB).SOPInstanceUID == "1.2.3"
    with pytest.raises(ValueError, match="longer than"):
        read_file(bomb, most_inflated=7 * MIB)


def test_a_note_that_breaks_off_is_no_note(tmp_path: Path) -> None:
    """What cannot be inflated behind the header, as what inflates without end, is no rejection and no failure."""
    assert read_note(deflated_note(tmp_path / "broken.dcm", MIB, b"\x07\xff\xff\xff")) is None
    assert read_note(deflated_note(tmp_path / "long.dcm", 65 * MIB)) is None


def test_frames_beyond_the_bound_are_refused() -> None:
    """The decoder is ended before the second frame's pixels are taken into memory."""
    decoder = FrameDecoder(most_bytes=30_000)  # of one frame

    with pytest.raises(DecoderDiedError, match="too large"):
        decoder.frames(TEST_FILES / "SC_rgb_rle_2frame.dcm", [0, 1])
