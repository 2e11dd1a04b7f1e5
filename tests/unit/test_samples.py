"""The shipped samples are small, whole, and say nothing about anyone."""

import dataclasses
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless

from tests.studies import RealData
from tests.xray import XRay, wrap_xray

MEGABYTE = 1_000_000
MADE_UP = XRay("TEST-1", "Test^Patient")


def test_samples_stay_in_their_budget(real_data: RealData) -> None:
    """The X-rays take at most 2 MB and all shipped studies at most 8 MB."""
    xrays = sum(file.stat().st_size for file in real_data.cxr)
    others = sum(file.stat().st_size for file in real_data.samples.rglob("*.dcm"))

    assert len(real_data.cxr) == 3
    assert xrays <= 2 * MEGABYTE
    assert xrays + others <= 8 * MEGABYTE


def test_without_the_shared_data_every_kind_of_study_is_still_there(real_data: RealData) -> None:
    """A machine with the checkout alone has a CT, an MR, X-rays and odd files to run on."""
    shipped = dataclasses.replace(real_data, shared=None)
    counts = {name: len(files) for name, files in shipped.studies().items()}

    assert shipped.describe() == "shipped samples only"
    assert counts.pop("odd") > 50
    assert counts == {"ct-philips": 22, "mr": 32, "xrays": 3}


def test_each_sample_folder_says_where_it_comes_from(real_data: RealData) -> None:
    """Source and licence stand beside the files."""
    for folder in (real_data.samples, real_data.cxr[0].parent):
        assert "CC BY 4.0" in (folder / "README.md").read_text(encoding="utf-8")


def test_sample_xrays_are_three_patients_and_studies(real_data: RealData) -> None:
    """Each X-ray is its own patient, study and instance, of children between 1 and 5 years."""
    samples = [pydicom.dcmread(file) for file in real_data.cxr]

    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber"):
        assert len({sample[keyword].value for sample in samples}) == 3
    assert all(1 <= int(sample.PatientAge.removesuffix("Y")) <= 5 for sample in samples)
    assert all(str(sample.PatientName).startswith("Sample^") for sample in samples)


def test_sample_ct_is_one_even_stretch_in_jpeg_ls(real_data: RealData) -> None:
    """The CT slices are of one series, JPEG-LS without loss, 5 mm apart, and decode to lung and body."""
    slices = [pydicom.dcmread(file) for file in sorted((real_data.samples / "ct-chest").glob("*.dcm"))]
    positions = sorted(float(one.ImagePositionPatient[2]) for one in slices)
    hounsfield = slices[0].pixel_array * float(slices[0].RescaleSlope) + float(slices[0].RescaleIntercept)

    assert {one.file_meta.TransferSyntaxUID for one in slices} == {JPEGLSLossless}
    assert len({one.SeriesInstanceUID for one in slices}) == 1
    assert np.allclose(np.diff(positions), 5.0)
    assert np.mean(hounsfield < -700) > 0.2
    assert np.mean((hounsfield > -50) & (hounsfield < 150)) > 0.1


def test_sample_mr_is_the_cropped_series(real_data: RealData) -> None:
    """The MR samples are the 32 slices of one cropped series."""
    slices = [pydicom.dcmread(file) for file in sorted((real_data.samples / "mr-hippocampus").glob("*.dcm"))]

    assert len(slices) == 32
    assert {(one.SeriesDescription, one.Rows, one.Columns) for one in slices} == {("HippoCrop", 51, 35)}


def test_a_baseline_jpeg_is_wrapped_without_recompression_or_metadata(tmp_path: Path) -> None:
    """The entropy-coded data stay byte for byte; comments and application segments do not come along."""
    picture = tmp_path / "picture.jpeg"
    _picture().save(picture, comment=b"Jane Roe, 1 May", quality=80)
    wrap_xray(picture, tmp_path / "wrapped.dcm", MADE_UP)
    wrapped = pydicom.dcmread(tmp_path / "wrapped.dcm")
    frame = get_frame(wrapped.PixelData, 0)
    scan = picture.read_bytes().partition(b"\xff\xda")[2]

    assert wrapped.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert frame.rstrip(b"\0").endswith(scan)
    assert b"Jane Roe" not in frame
    assert b"JFIF" not in frame
    assert np.array_equal(wrapped.pixel_array, np.asarray(Image.open(picture)))


def test_a_progressive_jpeg_becomes_lossless_jpeg_ls(tmp_path: Path) -> None:
    """DICOM has no transfer syntax for a progressive JPEG: its pixels are kept exactly in another one."""
    picture = tmp_path / "picture.jpeg"
    _picture().save(picture, progressive=True)
    wrap_xray(picture, tmp_path / "wrapped.dcm", MADE_UP)
    wrapped = pydicom.dcmread(tmp_path / "wrapped.dcm")

    assert wrapped.file_meta.TransferSyntaxUID == JPEGLSLossless
    assert wrapped.LossyImageCompression == "01"
    assert np.array_equal(wrapped.pixel_array, np.asarray(Image.open(picture)))


def test_wrapping_is_reproducible(tmp_path: Path) -> None:
    """The same picture and patient give the same file, another picture another study."""
    picture, other = tmp_path / "picture.jpeg", tmp_path / "other.jpeg"
    for path in (picture, other):
        _picture().save(path)
    for source, target in ((picture, "first.dcm"), (picture, "second.dcm"), (other, "third.dcm")):
        wrap_xray(source, tmp_path / target, MADE_UP)
    first, second, third = (tmp_path / name for name in ("first.dcm", "second.dcm", "third.dcm"))

    assert first.read_bytes() == second.read_bytes()
    assert pydicom.dcmread(first).StudyInstanceUID != pydicom.dcmread(third).StudyInstanceUID


def test_a_colour_picture_is_refused(tmp_path: Path) -> None:
    """Three channels are no X-ray."""
    picture = tmp_path / "picture.jpeg"
    _picture().convert("RGB").save(picture)

    with pytest.raises(ValueError, match="8-bit grey wanted"):
        wrap_xray(picture, tmp_path / "wrapped.dcm", MADE_UP)


def _picture() -> Image.Image:
    """Make a smooth grey picture with an odd number of pixels."""
    rows, columns = np.mgrid[0:65, 0:63]
    return Image.fromarray(((rows * 2 + columns) % 256).astype(np.uint8))
