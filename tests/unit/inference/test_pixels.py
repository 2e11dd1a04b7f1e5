"""Tests of `inference.pixels` and `inference.codestream` through `load_volumes`: stored values to modality values."""

import base64
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from inference.codestream import j2k_size, jpeg_size
from inference.errors import NotEvaluableError
from inference.volume import load_volumes
from tests.unit.inference.made_series import image, place, write

CR = uid.ComputedRadiographyImageStorage
MR = uid.MRImageStorage

HTJ2K_RAMP = base64.b64decode(
    "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABCwEB/1AACAACAAAAB/9SAAwAAgABAAEEBEAB/1wAByBw"
    "cHB4/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAAAmgAB/5PAAXt4/3/7+7/7+99+/rN//2uvf/XnP/34R/93P7/3O7/7"
    "zec+87e/fO0rP/vJxz7yf/96fd/1vW8971m/+9XrXvW5Tz3uUf95je/5jO/84jmv+M0nXvOIz/zhMW/4A9ev1l/Xr9Zf16/WXIQA"
    "xiEAMbUBwAE8ABWAAOfAKUvmAN7d3d398nv3yey4AP/Z"
)
"""16 x 16 pixels of 12 bits, value 16 * row + column, as a reversible HTJ2K codestream (made with OpenJPH)."""


def voxels_of(ds: Dataset, folder: Path) -> np.ndarray:
    """Write one instance and return its voxels."""
    (volume,) = load_volumes([write(ds, folder / "one.dcm")])
    return volume.voxels[0]


def refusal_of(ds: Dataset, folder: Path) -> NotEvaluableError:
    """Write one instance and return why it is refused."""
    with pytest.raises(NotEvaluableError) as refusal:
        load_volumes([write(ds, folder / "one.dcm")])
    return refusal.value


def test_overlay_bits_above_the_stored_ones_are_dropped(tmp_path: Path) -> None:
    """Bits 12 to 15 of a 12-bit image hold an overlay and do not reach the voxels."""
    values = np.array([[0, 1, 4095], [7, 8, 9]], "uint16")
    ds = place(image(MR, values | np.uint16(0xA000), bits_stored=12), [0, 0, 0])

    assert np.array_equal(voxels_of(ds, tmp_path), values)


def test_signed_values_of_few_bits_keep_their_sign(tmp_path: Path) -> None:
    """A 12-bit signed value is negative even when the bits above it are zero."""
    values = np.array([[-2048, -1, 0], [1, 2, 2047]], "int16")
    ds = place(image(MR, values & np.int16(0x0FFF), bits_stored=12), [0, 0, 0])

    assert np.array_equal(voxels_of(ds, tmp_path), values)


def test_monochrome1_of_a_projection_is_inverted(tmp_path: Path) -> None:
    """The darkest stored value of a MONOCHROME1 X-ray becomes the highest of its bits."""
    ds = image(CR, np.array([[0, 1], [1023, 1000]], "uint16"), bits_stored=10)
    ds.PhotometricInterpretation = "MONOCHROME1"

    assert voxels_of(ds, tmp_path).tolist() == [[1023, 1022], [0, 23]]


def test_monochrome1_of_a_ct_leaves_hounsfield_units(tmp_path: Path) -> None:
    """Photometric interpretation is about display; HU stand."""
    ds = place(image(pixels=np.array([[0, 24], [1024, 2024]], "uint16")), [0, 0, 0])
    ds.PhotometricInterpretation = "MONOCHROME1"

    assert voxels_of(ds, tmp_path).tolist() == [[-1024, -1000], [0, 1000]]


@pytest.mark.parametrize(
    ("padding", "limit", "expected"),
    [
        (-2000, None, [[-1000, -1124, -1004], [76, 1076, 1176]]),
        (-2000, -100, [[-1000, -1000, -1004], [76, 1076, 1176]]),
        (-100, -2000, [[-1000, -1000, -1004], [76, 1076, 1176]]),
    ],
)
def test_padding_of_a_ct_becomes_air(tmp_path: Path, padding: int, limit: int | None, expected: list[object]) -> None:
    """Padding values, alone or as a range in either order, become -1000 HU and nothing else does."""
    ds = place(image(pixels=np.array([[-2000, -100, 20], [1100, 2100, 2200]], "int16")), [0, 0, 0])
    ds.add_new("PixelPaddingValue", "SS", padding)
    if limit is not None:
        ds.add_new("PixelPaddingRangeLimit", "SS", limit)

    assert voxels_of(ds, tmp_path).tolist() == expected


def test_padding_outside_the_stored_bits_is_found(tmp_path: Path) -> None:
    """63536 as padding of 12-bit pixels is found though the stored bits cannot hold it."""
    ds = place(image(pixels=np.array([[63536, 24], [1024, 2024]], "uint16"), bits_stored=12), [0, 0, 0])
    ds.add_new("PixelPaddingValue", "US", 63536)

    assert voxels_of(ds, tmp_path).tolist() == [[-1000, -1000], [0, 1000]]


def test_padding_of_an_xray_becomes_its_darkest_value(tmp_path: Path) -> None:
    """Outside CT, padding takes the lowest other value, after inversion."""
    ds = image(CR, np.array([[0, 100], [200, 255]], "uint8"))
    ds.PhotometricInterpretation = "MONOCHROME1"
    ds.add_new("PixelPaddingValue", "US", 0)

    assert voxels_of(ds, tmp_path).tolist() == [[0, 155], [55, 0]]


def test_modality_lut_is_applied(tmp_path: Path) -> None:
    """A modality LUT in place of slope and intercept maps the stored values."""
    ds = image(CR, np.array([[0, 1], [2, 3]], "uint8"))
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [4, 0, 16])
    lut.add_new("LUTData", "US", [10, 20, 400, 65535])
    lut.ModalityLUTType = "US"
    ds.ModalityLUTSequence = [lut]

    assert voxels_of(ds, tmp_path).tolist() == [[10, 20], [400, 65535]]


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 12), ("int16", 12), ("int16", 16)])
def test_lossless_encodings_give_the_same_voxels(tmp_path: Path, syntax: str, dtype: str, bits: int) -> None:
    """RLE, JPEG-LS and JPEG 2000 give back signed and unsigned values of any depth."""
    low, high = (-(1 << bits - 1), 1 << bits - 1) if dtype[0] == "i" else (0, 1 << bits)
    values = np.random.default_rng(1).integers(low, high, (40, 48)).astype(dtype)
    ds = place(image(MR, values, bits_stored=bits), [0, 0, 0])
    ds.compress(syntax, generate_instance_uid=False)

    assert np.array_equal(voxels_of(ds, tmp_path), values)


@pytest.mark.parametrize(
    "command",
    [
        ["dcmcjpeg", "+e1", "+un"],
        ["dcmcjpeg", "+el", "+un"],
        ["dcmcjpls", "+un"],
        ["dcmcrle", "+un"],
        ["dcmconv", "+td"],
        ["dcmconv", "+tb"],
        ["dcmconv", "+ti"],
    ],
    ids=" ".join,
)
def test_encodings_by_dcmtk_give_the_same_voxels(tmp_path: Path, command: list[str]) -> None:
    """What dcmtk encodes without loss, deflated, big-endian and implicit included, is read as it was."""
    values = np.random.default_rng(2).integers(-1500, 2000, (20, 30)).astype("int16")
    plain = write(place(image(MR, values), [0, 0, 0]), tmp_path / "plain.dcm")
    coded = tmp_path / "coded.dcm"
    subprocess.run([*command, plain, coded], check=True)

    (volume,) = load_volumes([coded])

    assert np.array_equal(volume.voxels[0], values)


def test_jpeg_baseline_is_close(tmp_path: Path) -> None:
    """An 8-bit X-ray in baseline JPEG comes back within the loss of the codec."""
    rows, columns = np.mgrid[0:64, 0:64]
    plain = write(image(CR, (rows + columns).astype("uint8")), tmp_path / "plain.dcm")
    coded = tmp_path / "coded.dcm"
    subprocess.run(["dcmcjpeg", "+eb", "+q", "95", plain, coded], check=True)

    (volume,) = load_volumes([coded])

    assert np.abs(volume.voxels[0] - (rows + columns)).max() <= 4


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2K])
def test_htj2k_is_read(tmp_path: Path, syntax: uid.UID) -> None:
    """High-throughput JPEG 2000 gives back its values."""
    ds = place(image(MR, np.zeros((16, 16), "uint16"), bits_stored=12), [0, 0, 0])
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([HTJ2K_RAMP])
    ds["PixelData"].VR = "OB"

    assert np.array_equal(voxels_of(ds, tmp_path), np.arange(256).reshape(16, 16))


def test_twelve_bit_jpeg_extended_is_not_evaluable(tmp_path: Path) -> None:
    """12-bit JPEG Extended is refused with the transfer syntax in the reason."""
    values = np.random.default_rng(3).integers(0, 4096, (20, 30)).astype("uint16")
    plain = write(place(image(MR, values, bits_stored=12), [0, 0, 0]), tmp_path / "plain.dcm")
    coded = tmp_path / "coded.dcm"
    subprocess.run(["dcmcjpeg", "+ee", plain, coded], check=True)

    with pytest.raises(NotEvaluableError, match=r"pixels\.undecodable: .*JPEG Extended"):
        load_volumes([coded])


@pytest.mark.parametrize("size", [(20, 31), (65535, 65535)])
def test_a_codestream_of_another_size_never_reaches_a_decoder(tmp_path: Path, size: tuple[int, int]) -> None:
    """A JPEG-LS frame that declares another size than the header is refused; decoding it could end the process."""
    ds = place(image(MR, np.zeros((20, 30), "uint16")), [0, 0, 0])
    ds.compress(uid.JPEGLSLossless, generate_instance_uid=False)
    frame = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
    at = frame.index(b"\xff\xf7") + 5
    frame[at : at + 4] = size[0].to_bytes(2) + size[1].to_bytes(2)
    ds.PixelData = encapsulate([bytes(frame)])

    assert refusal_of(ds, tmp_path).code == "pixels.undecodable"


def test_a_decoder_that_dies_is_survived(tmp_path: Path) -> None:
    """Lossless JPEG that makes its decoder abort is refused, and the next instance is read."""
    values = np.random.default_rng(4).integers(0, 4096, (20, 30)).astype("uint16")
    plain = write(place(image(MR, values), [0, 0, 0]), tmp_path / "plain.dcm")
    whole, spoilt = tmp_path / "whole.dcm", tmp_path / "spoilt.dcm"
    subprocess.run(["dcmcjpeg", "+e1", "+un", plain, whole], check=True)
    ds = pydicom.dcmread(whole)
    frame = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
    table = frame.index(b"\xff\xc4")
    frame[table + 5 : table + 21] = b"\xff" * 16
    ds.PixelData = encapsulate([bytes(frame)])
    ds.save_as(spoilt)

    with pytest.raises(NotEvaluableError, match=r"pixels\.undecodable"):
        load_volumes([spoilt])
    (volume,) = load_volumes([whole])

    assert np.array_equal(volume.voxels[0], values)


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("PhotometricInterpretation", "RGB", "pixels.colour"),
        ("PhotometricInterpretation", "PALETTE COLOR", "pixels.colour"),
        ("BitsAllocated", 12, "pixels.header"),
        ("BitsStored", 17, "pixels.header"),
        ("HighBit", 11, "pixels.header"),
        ("PixelRepresentation", 2, "pixels.header"),
        ("Rows", 0, "pixels.header"),
        ("Rows", 5, "pixels.undecodable"),
        ("RescaleSlope", 0, "pixels.rescale"),
        ("RescaleSlope", "1e300", "pixels.rescale"),
        ("RescaleIntercept", None, "pixels.rescale"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, keyword: str, value: object, code: str) -> None:
    """Each spoilt attribute of a CT is refused with its own code."""
    ds = place(image(pixels=np.ones((4, 4), "uint16")), [0, 0, 0])
    setattr(ds, keyword, value)

    assert refusal_of(ds, tmp_path).code == code


def test_missing_pixel_data_is_refused(tmp_path: Path) -> None:
    """An image without pixel data is not evaluable."""
    ds = place(image(), [0, 0, 0])
    del ds.PixelData

    assert refusal_of(ds, tmp_path).code == "pixels.missing"


def test_sizes_are_read_from_codestreams() -> None:
    """Rows, columns and components come from SIZ, and from a frame header behind other segments."""
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc3\x00\x0b\x10\x00\x14\x00\x1e\x01"

    assert j2k_size(HTJ2K_RAMP) == (16, 16, 1)
    assert jpeg_size(jpeg) == (20, 30, 1)
    with pytest.raises(IndexError):
        jpeg_size(b"\xff\xd8\xff\xe0\x00\x04ab")
