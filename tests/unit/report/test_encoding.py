"""Files are encoded byte for byte as pydicom encodes them."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from gateway.report.encoding import encode_file


def _item(number: int) -> Dataset:
    item = Dataset()
    item.CodeValue = str(number)
    item.CodeMeaning = "Größe"
    item.ReferencedSOPInstanceUID = generate_uid()
    item.ImagePositionPatient = ["-1.50", "2", f"{number}.25"]
    item.DimensionIndexValues = [number, 2]
    item.MeasuredValueSequence = []
    item.PersonName = "Müller^Jörg=王^小東"
    item.FloatingPointValue = 0.1
    item.TextValue = ""
    return item


def _dataset() -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.34")
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "Müller^Jörg"
    dataset.ContentSequence = [_item(1), _item(22)]
    dataset.ContentSequence[1].ContentSequence = [_item(333)]
    dataset.PerFrameFunctionalGroupsSequence = []
    dataset.Rows = 2
    dataset.PixelData = b"\1\2\3\4"
    dataset["PixelData"].VR = "OB"
    return dataset


def _as_it_is(_dataset: Dataset) -> None:
    """Change nothing."""


def _last(dataset: Dataset) -> None:
    """Let the data set end with a sequence."""
    del dataset.PixelData


def _of_undefined_length(dataset: Dataset) -> None:
    dataset["ContentSequence"].is_undefined_length = True


def _with_items_of_undefined_length(dataset: Dataset) -> None:
    dataset.ContentSequence[0].is_undefined_length_sequence_item = True


def _with_a_character_set_of_its_own(dataset: Dataset) -> None:
    dataset.ContentSequence[0].SpecificCharacterSet = "ISO_IR 100"
    dataset.ContentSequence[0].PersonName = "Müller^Jörg"


def _with_a_vr_that_depends(dataset: Dataset) -> None:
    dataset.PixelRepresentation = 1
    dataset.ContentSequence[0].SmallestImagePixelValue = -1


def _as_it_was_read(dataset: Dataset) -> None:
    """Replace a sequence by one whose elements were never looked at."""
    written = io.BytesIO()
    pydicom.dcmwrite(written, copy.deepcopy(dataset), enforce_file_format=True)
    dataset.ContentSequence = Sequence(list(pydicom.dcmread(io.BytesIO(written.getvalue())).ContentSequence))


@pytest.mark.parametrize(
    "change",
    [
        _as_it_is,
        _last,
        _of_undefined_length,
        _with_items_of_undefined_length,
        _with_a_character_set_of_its_own,
        _with_a_vr_that_depends,
        _as_it_was_read,
    ],
)
def test_a_file_is_what_pydicom_would_write(change: Callable[[Dataset], None]) -> None:
    """Sequences in sequences, empty ones, text in several scripts, and what is left to pydicom."""
    dataset = _dataset()
    change(dataset)
    expected = io.BytesIO()
    pydicom.dcmwrite(expected, copy.deepcopy(dataset), enforce_file_format=True)

    assert encode_file(dataset) == expected.getvalue()
