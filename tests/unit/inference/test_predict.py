"""The shipped model on real X-rays: findings with geometry, and 'not evaluable' for what it was not made for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom import uid
from pydicom.dataset import Dataset

from inference.bundle import default_bundle_dir, load_bundle
from inference.device import resolve_device
from inference.errors import BundleError, DeviceError
from inference.findings import Findings, NotEvaluable, Outcome
from inference.predict import Predictor
from tests.unit.inference.made_series import image, write

_BUNDLE = load_bundle(default_bundle_dir() / "cxr-pneumonia")
_SAMPLES = Path(__file__).parents[3] / "gateway" / "samples"
_XRAY = _SAMPLES / "cxr-bacterial.dcm"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Give the shipped model on the CPU."""
    return Predictor(_BUNDLE, "cpu")


@pytest.fixture(scope="module")
def findings(predictor: Predictor) -> Findings:
    """Give what the model says about one sample X-ray."""
    (outcome,) = _outcomes(predictor, _XRAY)
    assert isinstance(outcome, Findings)
    return outcome


def _outcomes(predictor: Predictor, *paths: Path) -> tuple[Outcome, ...]:
    return predictor.run(predictor.prepare([list(paths)]))


def _changed(folder: Path, change: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(_XRAY)
    change(dataset)
    path = folder / "changed.dcm"
    dataset.save_as(path)
    return path


def _pixels() -> np.ndarray:
    return pydicom.dcmread(_XRAY).pixel_array


def _made(folder: Path, pixels: np.ndarray, name: str = "made.dcm") -> Path:
    return write(image(uid.DigitalXRayImageStorageForPresentation, pixels), folder / name)


def test_every_level_is_answered_with_probabilities_that_agree(findings: Findings) -> None:
    """Both levels sum to 1, and the kinds of pneumonia sum to pneumonia."""
    coarse, fine = findings.findings
    by_name = {label.name: label.probability for label in fine.alternatives}

    assert sum(label.probability for label in coarse.alternatives) == pytest.approx(1)
    assert sum(by_name.values()) == pytest.approx(1)
    assert coarse.answer.name == "pneumonia"
    assert by_name["bacterial"] + by_name["viral"] == pytest.approx(coarse.answer.probability)
    assert fine.parent_id == coarse.tracking_id


def test_findings_name_algorithm_and_source(findings: Findings) -> None:
    """The digest of the weights and the source image are part of the answer."""
    header = pydicom.dcmread(_XRAY, stop_before_pixels=True)

    assert findings.algorithm.weights_digest == _BUNDLE.algorithm.weights_digest
    assert findings.series_instance_uid == header.SeriesInstanceUID
    assert [frame.sop_instance_uid for frame in findings.frames] == [header.SOPInstanceUID]


def test_the_lungs_lie_on_the_source_grid(findings: Findings) -> None:
    """Masks have the image's size, do not overlap, and the patient's right lung is on the left."""
    right, left = (segment.mask for segment in findings.segments)

    assert right.shape == left.shape == (1, *_pixels().shape)
    assert not (right & left).any()
    assert np.argwhere(right[0])[:, 1].mean() < np.argwhere(left[0])[:, 1].mean()


def test_areas_follow_the_pixel_spacing(findings: Findings) -> None:
    """The area is the number of pixels times the declared pixel area, in cm2."""
    spacing_y, spacing_x = pydicom.dcmread(_XRAY, stop_before_pixels=True).ImagerPixelSpacing
    for segment in findings.segments:
        (area,) = segment.measurements

        assert area.unit.value == "cm2"
        assert area.value == pytest.approx(segment.mask.sum() * spacing_y * spacing_x / 100)


def test_without_pixel_spacing_there_is_no_area(predictor: Predictor, tmp_path: Path) -> None:
    """Pixels of unknown size have no area; the masks are reported all the same."""

    def forget_spacing(dataset: Dataset) -> None:
        del dataset.ImagerPixelSpacing

    (outcome,) = _outcomes(predictor, _changed(tmp_path, forget_spacing))

    assert isinstance(outcome, Findings)
    assert [segment.measurements for segment in outcome.segments] == [(), ()]


def test_the_heat_map_is_as_bright_as_the_class_is_probable(findings: Findings) -> None:
    """It lies on the source grid and its maximum is the probability of pneumonia."""
    (heat_map,) = findings.heat_maps

    assert heat_map.weight.shape == _pixels().shape
    assert heat_map.weight.dtype == np.float32
    assert heat_map.weight.min() >= 0
    assert heat_map.weight.max() == pytest.approx(findings.findings[0].answer.probability, abs=0.05)


def test_answers_repeat(predictor: Predictor, findings: Findings) -> None:
    """The same image gives the same probabilities and masks, bit for bit, on the CPU."""
    (again,) = _outcomes(predictor, _XRAY)

    assert isinstance(again, Findings)
    assert again.findings == findings.findings
    assert all((a.mask == b.mask).all() for a, b in zip(again.segments, findings.segments, strict=True))


def test_the_answer_does_not_depend_on_how_pixels_are_stored(
    predictor: Predictor, findings: Findings, tmp_path: Path
) -> None:
    """Twelve bits and MONOCHROME1 give the answer of eight bits and MONOCHROME2."""
    dataset = image(
        uid.DigitalXRayImageStorageForPresentation, (4095 - 16 * _pixels().astype("uint16")), bits_stored=12
    )
    dataset.PhotometricInterpretation = "MONOCHROME1"

    (outcome,) = _outcomes(predictor, write(dataset, tmp_path / "inverse.dcm"))

    assert isinstance(outcome, Findings)
    assert outcome.findings[0].answer.probability == pytest.approx(findings.findings[0].answer.probability, abs=1e-3)


def test_each_image_of_a_study_has_its_own_tracking_identifiers(predictor: Predictor) -> None:
    """Two images give two outcomes whose identifiers do not clash."""
    outcomes = predictor.run(predictor.prepare([[_XRAY], [_SAMPLES / "cxr-viral.dcm"]]))

    ids = [
        item.tracking_id
        for outcome in outcomes
        if isinstance(outcome, Findings)
        for item in (*outcome.findings, *outcome.segments)
    ]
    assert len(outcomes) == 2
    assert len(ids) == len(set(ids)) >= 7


@pytest.mark.parametrize(
    ("attribute", "value", "code"),
    [
        ("Modality", "RF", "modality"),
        ("BodyPartExamined", "HAND", "body-part"),
        ("ViewPosition", "LL", "projection"),
        ("ViewPosition", "LATERAL", "projection"),
        ("PatientAge", "067Y", "age"),
    ],
)
def test_what_is_outside_the_declared_input_is_refused(
    predictor: Predictor, tmp_path: Path, attribute: str, value: str, code: str
) -> None:
    """A real chest X-ray that says it is something else is not evaluated, and the reason names no patient."""
    path = _changed(tmp_path, lambda dataset: setattr(dataset, attribute, value))

    (outcome,) = _outcomes(predictor, path)

    assert isinstance(outcome, NotEvaluable)
    assert outcome.code == code
    assert outcome.series_instance_uid
    assert str(pydicom.dcmread(path).PatientID) not in outcome.reason


def test_small_and_blank_images_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    """An image under 64 pixels and one without any contrast hold nothing to evaluate."""
    small = _made(tmp_path, _pixels()[::32, ::32], "small.dcm")
    blank = _made(tmp_path, np.full((300, 300), 7, dtype=np.uint8), "blank.dcm")

    codes = [outcome.code for path in (small, blank) for outcome in _outcomes(predictor, path)]  # type: ignore[union-attr]  # NotEvaluable alone has it

    assert codes == ["image.small", "image.blank"]


@pytest.mark.parametrize("kind", ["noise", "negative", "on its side"])
def test_an_image_without_plausible_lungs_is_refused(predictor: Predictor, tmp_path: Path, kind: str) -> None:
    """Noise, a negative and a chest on its side say they are chest X-rays, and are not evaluated."""
    pictures = {
        "noise": np.random.default_rng(0).integers(0, 255, (600, 600)).astype(np.uint8),
        "negative": 255 - _pixels(),
        "on its side": np.ascontiguousarray(np.rot90(_pixels())),
    }

    (outcome,) = _outcomes(predictor, _made(tmp_path, pictures[kind]))

    assert isinstance(outcome, NotEvaluable)
    assert outcome.code.startswith("lungs.")


def test_colour_photographs_and_broken_files_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    """Both end in a reason, and a good series beside them in findings."""
    photograph = image(uid.SecondaryCaptureImageStorage, np.zeros((80, 80), np.uint8))
    photograph.SamplesPerPixel, photograph.PhotometricInterpretation = 3, "RGB"
    photograph.PlanarConfiguration = 0
    photograph.PixelData = bytes(80 * 80 * 3)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 200)

    outcomes = predictor.run(predictor.prepare([[write(photograph, tmp_path / "photograph.dcm")], [broken], [_XRAY]]))

    assert [type(outcome) for outcome in outcomes] == [NotEvaluable, NotEvaluable, Findings]


def test_a_missing_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """'cuda' without a GPU is a device error; 'auto' takes the CPU then."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="no CUDA device"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="gpu"):
        resolve_device("gpu")


def test_a_full_device_is_an_error_that_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory during evaluation asks the caller to retry."""
    predictor = Predictor(_BUNDLE, "cpu")

    def full(_: torch.Tensor) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError

    predictor.network.features = full  # type: ignore[method-assign]  # stands for a GPU that is full

    with pytest.raises(DeviceError) as caught:
        predictor.run(predictor.prepare([[_XRAY]]))
    assert caught.value.may_pass


def test_weights_of_another_network_are_refused() -> None:
    """A wider network than the weights' is named as a bundle error, as are a foreign kind and missing guards."""
    wider = replace(_BUNDLE, network={**_BUNDLE.network, "width": 32})
    foreign = replace(_BUNDLE, network={"kind": "unet"})
    unguarded = replace(_BUNDLE, thresholds={})

    for bundle, named in (
        (wider, "does not fit"),
        (foreign, "network.kind"),
        (unguarded, "thresholds.least_confidence"),
    ):
        with pytest.raises(BundleError, match=named):
            Predictor(bundle, "cpu")
