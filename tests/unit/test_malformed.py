"""Broken values for which pydicom raises what nobody expects; nobody is ended by them, or tries for ever.

A value that is no multiple of its VR's length: an error that is no ValueError. An item of a sequence that is cut off:
an OSError, as if the disk were at fault.
"""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from starlette.exceptions import HTTPException

from gateway.decoding import MALFORMED
from gateway.dispatcher import read_tag
from gateway.rejection import KEY_OBJECT_SELECTION, read_note
from gateway.report.order import NO_ORDER, read_order
from gateway.web.dicomweb.dataset_json import read_json
from gateway.web.dicomweb.frames import bulk_value
from inference.instance import MALFORMED as UNREADABLE
from inference.instance import item, read_header, text
from tests.dicomweb import as_file
from tests.receiving import image


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a Key Object Selection whose title's code and whose procedure are written as FL, six bytes long."""
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113001", "DCM", "Rejected"
    data_set = image(SOPClassUID=KEY_OBJECT_SELECTION, ConceptNameCodeSequence=[title], RequestedProcedureID="113001")
    path = tmp_path / "note.dcm"
    path.write_bytes(as_file(data_set).replace(b"SH\x06\x00113001", b"FL\x06\x00113001"))
    return path


def test_the_file_is_one_that_pydicom_cannot_read(file: Path) -> None:
    """And what it raises belongs to what every reader is prepared for."""
    with pytest.raises(BytesLengthException) as caught:
        str(pydicom.dcmread(file).RequestedProcedureID)

    assert isinstance(caught.value, MALFORMED)
    assert isinstance(caught.value, UNREADABLE)


def test_every_reader_bears_it(file: Path) -> None:
    """The indexer, which reads notes; the dispatcher, which reads tags of rules; worker, report and metadata."""
    assert read_note(file) is None
    assert read_tag(file, "RequestedProcedureID") == ""
    assert read_order([file]) == NO_ORDER
    assert read_json(file)["00401001"] == {"vr": "FL"}
    assert text(read_header(file, 1 << 20), "RequestedProcedureID") == ""


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Give a rejection note whose content is a sequence of four bytes."""
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113001", "DCM", "Rejected"
    path = tmp_path / "cut.dcm"
    whole = as_file(image(SOPClassUID=KEY_OBJECT_SELECTION, ConceptNameCodeSequence=[title]))
    path.write_bytes(whole + b"\x40\x00\x30\xa7SQ\0\0\x04\0\0\0abcd")
    return path


def test_a_sequence_that_is_cut_off_is_no_fault_of_the_disk(cut: Path) -> None:
    """The indexer would wait for the disk for ever, and a client be told that the file is missing."""
    with pytest.raises(OSError, match="No tag to read") as caught:
        len(pydicom.dcmread(cut).ContentSequence)

    assert caught.value.errno is None
    assert read_note(cut) is None
    with pytest.raises(MALFORMED):
        read_json(cut)
    assert item(read_header(cut, 1 << 20), "ContentSequence") is None
    with pytest.raises(HTTPException) as answered:
        bulk_value(cut, ["0040A730", "1", "00080100"])
    assert answered.value.status_code == 404


def test_a_file_that_is_gone_is_a_fault_of_the_disk(tmp_path: Path) -> None:
    """It may pass, so it is told as such."""
    for read in (read_json, lambda path: read_header(path, 1 << 20)):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone.dcm")
