"""Training on a tiny made-up data set: it learns, resumes to the same weights, and leaves a bundle that loads."""

import csv
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from inference.bundle import default_bundle_dir, load_bundle
from inference.training.progress import Progress
from inference.training.run import CHECKPOINT, calibrate, evaluate, train

_SIDE = 64
_GROUPS = 48
_TINY = {
    "size = 112": "size = 64",
    "detail = 224": "detail = 64",
    'backbone = "resnet18"': 'backbone = "resnet10"',
    "width = 24": "width = 8",
    "channels = 48": "channels = 8",
    "decoder_width = 32": "decoder_width = 8",
    "scales = [1.0, 0.75, 0.5]": "scales = [1.0, 0.5]",
    "batch_size = 24": "batch_size = 8",
    "average_decay = 0.996": "average_decay = 0.5",
    "validation_share = 0.15": "validation_share = 0.25",
    "calibration_share = 0.08": "calibration_share = 0.25",
    "learning_rate = 0.001": "learning_rate = 0.003",
}


class Interrupted(Exception):
    """Stands for a killed process."""


def _chest(seed: int, fine: str) -> tuple[Image.Image, Image.Image]:
    """Draw two dark lungs on a bright body, with bright spots (bacterial) or haze (viral), and the lungs' mask."""
    generator = np.random.default_rng(seed)
    image, mask = Image.new("L", (_SIDE, _SIDE), 170), Image.new("L", (_SIDE, _SIDE), 0)
    for left in (8, 36):
        box = (left, 12 + int(generator.integers(0, 4)), left + 20, 54)
        ImageDraw.Draw(image).ellipse(box, fill=110 if fine == "viral" else 60)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    if fine == "bacterial":
        ImageDraw.Draw(image).ellipse((10, 30, 26, 46), fill=200)
    noisy = np.asarray(image, dtype=np.float32) + generator.normal(0, 5, (_SIDE, _SIDE))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), mask


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data set in the layout of labels.csv, two images in some groups."""
    folder = tmp_path_factory.mktemp("chests")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rows = []
    for number in range(_GROUPS):
        fine = ("normal", "bacterial", "viral")[number % 3]
        image, mask = _chest(number, fine)
        image.save(folder / "images" / f"{number}.png")
        mask.convert("1").save(folder / "masks" / f"{number}.png")
        coarse = "normal" if fine == "normal" else "pneumonia"
        rows.append([f"{number}.png", f"child{number}", coarse, fine, 640 + number, 600, f"{number}.png", 0.95])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        header = ["image", "group", "coarse", "fine", "orig_width", "orig_height", "mask", "mask_confidence"]
        csv.writer(file).writerows([header, *rows])
    return folder


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the shipped bundle's description with a network small enough for seconds."""
    text = (default_bundle_dir() / "cxr-pneumonia" / "bundle.toml").read_text(encoding="utf-8")
    for shipped, tiny in _TINY.items():
        assert shipped in text, shipped
        text = text.replace(shipped, tiny)
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "bundle.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(tiny_bundle: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """Give the bundle after three uninterrupted epochs, and what the run reported."""
    seen: list[Progress] = []
    out = tmp_path_factory.mktemp("trained")
    return _train(tiny_bundle, data_dir, out, seen.append), seen


def _train(bundle: Path, data: Path, out: Path, report: Callable[[Progress], None]) -> Path:
    return train(bundle, data, out, device="cpu", epochs=3, seed=3, report=report)


def test_the_loss_falls(trained: tuple[Path, list[Progress]]) -> None:
    """The mean loss of the last epoch is clearly below that of the first."""
    last_of_epoch = {step.epoch: step.figures["total"] for step in trained[1] if step.stage == "train"}

    assert last_of_epoch[3] < 0.9 * last_of_epoch[1]


def test_an_interrupted_run_ends_with_the_same_weights(
    trained: tuple[Path, list[Progress]], tiny_bundle: Path, data_dir: Path, tmp_path: Path
) -> None:
    """A run killed in its second epoch and started again ends with the weights of a run that was left alone."""

    def interrupt(step: Progress) -> None:
        if step.stage == "train" and step.epoch == 2 and step.done == step.total:
            raise Interrupted

    with pytest.raises(Interrupted):
        _train(tiny_bundle, data_dir, tmp_path, interrupt)
    assert (tmp_path / CHECKPOINT).exists()
    resumed: list[Progress] = []
    _train(tiny_bundle, data_dir, tmp_path, resumed.append)

    assert min(step.epoch for step in resumed if step.stage == "train") == 2
    weights, uninterrupted = (load_file(path / "weights.safetensors") for path in (tmp_path, trained[0]))
    assert all((weights[name] == uninterrupted[name]).all() for name in uninterrupted)


def test_the_result_is_a_bundle_with_its_figures(trained: tuple[Path, list[Progress]]) -> None:
    """The folder loads as a bundle whose digest, temperatures and evaluation are those of the new weights."""
    bundle = load_bundle(trained[0])

    assert bundle.evaluation["weights_sha256"] == bundle.algorithm.weights_digest
    assert all(temperature > 0 for temperature in bundle.temperatures)
    assert bundle.calibration["images"] == sum(step.stage == "calibrate" for step in trained[1])
    assert bundle.evaluation["images"] == sum(step.stage == "evaluate" for step in trained[1])
    assert not (trained[0] / CHECKPOINT).exists()


def test_evaluation_repeats(trained: tuple[Path, list[Progress]], data_dir: Path) -> None:
    """Evaluating the stored weights again gives the figures that training wrote, digit for digit."""
    report = evaluate(trained[0], data_dir, device="cpu", report=lambda _: None)

    written = tomllib.loads((trained[0] / "bundle.toml").read_text(encoding="utf-8"))["evaluation"]
    assert report.to_dict() == written


def test_calibration_repeats(trained: tuple[Path, list[Progress]], data_dir: Path) -> None:
    """Calibrating again finds the temperatures that training wrote and leaves the rest of the file alone."""
    before = (trained[0] / "bundle.toml").read_text(encoding="utf-8")

    calibrate(trained[0], data_dir, device="cpu", report=lambda _: None)

    after = (trained[0] / "bundle.toml").read_text(encoding="utf-8")
    assert tomllib.loads(after) == tomllib.loads(before)
