"""The X-ray bundle's guards: what is no chest radiograph is not evaluable, whatever its header says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from inference.bundle import load_bundle
from inference.findings import Findings, NotEvaluable
from inference.predict import Predictor
from inference.volume import load_series
from tests.studies import RealData

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "gateway" / "samples"
FULL_SIZE = ROOT.parent / "shared" / "data" / "cxr-fullres"
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
_HEIGHTS = (0.35, 0.5, 0.65)
"""Of a chest CT: where a plane shows both lungs."""
_TURNED_OVER: dict[str, Callable[[Pixels], Pixels]] = {
    "by 180 degrees": lambda pixels: np.rot90(pixels, 2),
    "top to bottom": np.flipud,
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
    """Also where its file was written as those above are, so that it is the picture that decides.

    Each finding has a label set, and tells which part of its uncertainty the model's weights leave open.
    """
    path = _as_radiograph(pydicom.dcmread(sample).pixel_array, tmp_path / "chest.dcm")

    (outcome,) = predictor.run(predictor.prepare([[path]]))

    assert isinstance(outcome, Findings)
    assert all(finding.label_set for finding in outcome.findings)
    parts = [(finding.epistemic, finding.uncertainty) for finding in outcome.findings]
    assert all(part is not None and 0 < part <= whole for part, whole in parts)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.dcm")), ids=lambda path: path.stem)
@pytest.mark.parametrize("way", _TURNED_OVER)
def test_a_film_upside_down_is_not_evaluable(predictor: Predictor, tmp_path: Path, sample: Path, way: str) -> None:
    """Its lungs are found, but its features are those of training images turned over, or of none."""
    pixels = _TURNED_OVER[way](pydicom.dcmread(sample).pixel_array)
    path = _as_radiograph(pixels, tmp_path / "turned.dcm")

    (outcome,) = predictor.run(predictor.prepare([[path]]))

    assert isinstance(outcome, NotEvaluable)
    assert outcome.code in {"image.upside-down", "image.unlike-training", "lungs.implausible"}


@pytest.mark.parametrize("way", _TURNED_OVER)
def test_hardly_any_film_upside_down_is_answered(predictor: Predictor, tmp_path: Path, way: str) -> None:
    """Of the published full-size cases, none of which was learnt from, at most one is answered turned over."""
    films = sorted(FULL_SIZE.glob("*.jpeg"))
    if not films:
        pytest.skip("the shared data set is not beside the checkout")
    turned = []
    for number, film in enumerate(films):
        with Image.open(film) as picture:
            pixels = _TURNED_OVER[way](np.asarray(picture.convert("L").reduce(2)))
        turned.append([_as_radiograph(pixels, tmp_path / f"{number}.dcm")])

    outcomes = predictor.run(predictor.prepare(turned))

    assert sum(isinstance(outcome, Findings) for outcome in outcomes) <= 1
    assert any(outcome.code == "image.upside-down" for outcome in outcomes if isinstance(outcome, NotEvaluable))


@pytest.mark.parametrize("gamma", [1.0, 0.6])
def test_a_chest_from_the_side_and_an_abdomen_are_not_evaluable(
    predictor: Predictor, real_data: RealData, tmp_path: Path, gamma: float
) -> None:
    """No such films are at hand, but projections of a chest CT: only the whole of it from the front is answered."""
    chest = _standing(real_data.studies()["ct-philips"])  # (Z, Y, X) head first, in cubes
    views = {
        "front": chest.sum(axis=1),
        "left": chest.sum(axis=2),
        "right": chest.sum(axis=2)[:, ::-1],
        "upper abdomen": chest[round(0.6 * len(chest)) :].sum(axis=1),
    }

    outcomes = {
        name: predictor.run(predictor.prepare([[_as_radiograph(_film(view, gamma), tmp_path / f"{name}.dcm")]]))[0]
        for name, view in views.items()
    }

    assert {name for name, outcome in outcomes.items() if isinstance(outcome, Findings)} == {"front"}


@pytest.mark.parametrize("window_hu", [(-1350, 150), (-1024, 3071)], ids=["lung", "full"])
def test_planes_through_both_lungs_in_ct_are_not_evaluable(
    predictor: Predictor, real_data: RealData, tmp_path: Path, window_hu: tuple[int, int]
) -> None:
    """Planes at three heights of each series at hand, three by two vendors, under the header of a radiograph."""
    files = [file for name, study in real_data.studies().items() if name.startswith("ct-") for file in study]
    series: dict[str, list[Path]] = {}
    for file in files:
        series.setdefault(pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID, []).append(file)
    volumes = [volume.voxels for each in series.values() for volume in load_series(each).volumes]
    planes = [np.clip(voxels[round(share * len(voxels))], *window_hu) for voxels in volumes for share in _HEIGHTS]
    films = [[_as_radiograph(plane, tmp_path / f"{number}.dcm")] for number, plane in enumerate(planes)]

    outcomes = predictor.run(predictor.prepare(films))

    assert len(outcomes) >= len(_HEIGHTS)
    assert not any(isinstance(outcome, Findings) for outcome in outcomes)


def _standing(files: Sequence[Path]) -> NDArray[np.float32]:
    """Return what weakens X-rays in a CT study, in cubes of 2 mm, the head's end first."""
    volume = max(load_series(files).volumes, key=lambda each: each.voxels.size)
    assert volume.spacing_mm is not None
    weakening = np.clip(volume.voxels + 1000, 0, None)  # HU above air
    cubes: NDArray[np.float32] = ndimage.zoom(weakening, [side / 2 for side in volume.spacing_mm], order=1)
    return cubes[::-1]


def _film(view: NDArray[np.float32], gamma: float) -> Pixels:
    """Return a projection as a film shows it, dense white."""
    low, high = np.percentile(view, [1, 99])
    shares: Pixels = np.clip((view - low) / (high - low), 0, 1) ** gamma
    return shares


def test_a_mirror_image_is_answered(predictor: Predictor, tmp_path: Path) -> None:
    """Left for right: the guards do not notice, as a heart on the right may be the patient's; its card says so."""
    path = _as_radiograph(_sample(np.fliplr), tmp_path / "mirrored.dcm")

    (outcome,) = predictor.run(predictor.prepare([[path]]))

    assert isinstance(outcome, Findings)
