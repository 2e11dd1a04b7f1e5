"""The X-ray bundle's guards: what is no chest radiograph is not evaluable, whatever its header says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from inference.bundle import load_bundle
from inference.findings import Findings, NotEvaluable
from inference.predict import Predictor

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "gateway" / "samples"
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
_LEAST_SIDE_PX = 512
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

Pixels = NDArray[Any]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Load the shipped bundle."""
    return Predictor(load_bundle(ROOT / "inference" / "bundles" / "cxr-pneumonia"), "cpu")


def _file(name: str) -> Pixels:
    pixels = pydicom.dcmread(TEST_FILES / name).pixel_array
    return pixels if pixels.ndim == 2 else pixels[..., 0]


def _sample(change: Callable[[Pixels], Pixels]) -> Pixels:
    return change(pydicom.dcmread(SAMPLES / "cxr-normal.dcm").pixel_array)


_STRANGE: dict[str, Callable[[], Pixels]] = {
    "CT of the abdomen": lambda: _file("CT_small.dcm"),
    "MR": lambda: _file("MR_small.dcm"),
    "ultrasound": lambda: _file("examples_palette.dcm"),
    "photograph": lambda: _file("examples_rgb_color.dcm"),
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (600, 700)),
    "negative": lambda: _sample(lambda pixels: pixels.max() - pixels),
    "on its side": lambda: _sample(np.rot90),
    "a quarter of a chest": lambda: _sample(lambda pixels: pixels[: len(pixels) // 2, : pixels.shape[1] // 2]),
}


def _as_radiograph(pixels: Pixels, path: Path) -> Path:
    """Write pixels under the header of a chest X-ray, stretched to its range and at least to its size."""
    low, high = float(pixels.min()), float(pixels.max())
    picture = Image.fromarray(((pixels - low) * (255 / max(high - low, 1))).astype(np.uint8))
    scale = max(1.0, _LEAST_SIDE_PX / min(picture.size))
    grey = np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale))))
    grey = grey[:, : grey.shape[1] // 2 * 2]
    data_set = pydicom.dcmread(SAMPLES / "cxr-normal.dcm")
    for name in (*_LOSSY, "WindowCenter", "WindowWidth"):
        if name in data_set:
            delattr(data_set, name)
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data_set.Rows, data_set.Columns = grey.shape
    data_set.BitsAllocated = data_set.BitsStored = 8
    data_set.HighBit, data_set.PixelRepresentation = 7, 0
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.PixelData = grey.tobytes()
    data_set.save_as(path)
    return path


@pytest.mark.parametrize("name", _STRANGE)
def test_what_is_no_chest_is_not_evaluable(predictor: Predictor, tmp_path: Path, name: str) -> None:
    """Each is refused with a reason that speaks of the image: by the lungs that are not there, or by its features."""
    path = _as_radiograph(_STRANGE[name](), tmp_path / "strange.dcm")

    (outcome,) = predictor.run(predictor.prepare([[path]]))

    assert isinstance(outcome, NotEvaluable)
    assert outcome.code.startswith(("lungs.", "image."))
    assert outcome.reason.endswith(".")


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.dcm")), ids=lambda path: path.stem)
def test_a_chest_is_answered(predictor: Predictor, tmp_path: Path, sample: Path) -> None:
    """Also where its file was written as those above are, so that it is the picture that decides."""
    path = _as_radiograph(pydicom.dcmread(sample).pixel_array, tmp_path / "chest.dcm")

    (outcome,) = predictor.run(predictor.prepare([[path]]))

    assert isinstance(outcome, Findings)
    assert any(finding.label_set for finding in outcome.findings)
