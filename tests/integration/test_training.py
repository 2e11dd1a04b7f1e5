"""Training on a tiny made-up data set: it learns, resumes to the same weights, and leaves a bundle that loads."""

import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from inference.bundle import load_bundle
from inference.training.progress import Progress
from inference.training.run import CHECKPOINT, calibrate, evaluate
from tests.training import train_tiny


class Interrupted(Exception):
    """Stands for a killed process."""


def test_the_loss_falls(trained: tuple[Path, list[Progress]]) -> None:
    """The mean loss of the last epoch is clearly below that of the first."""
    last_of_epoch = {step.epoch: step.figures["total"] for step in trained[1] if step.stage == "train"}

    assert last_of_epoch[3] < 0.9 * last_of_epoch[1]


def test_an_interrupted_run_ends_with_the_same_weights(
    trained: tuple[Path, list[Progress]], tiny_bundle: Path, chests: Path, tmp_path: Path
) -> None:
    """A run killed in its second epoch and started again ends with the weights of a run that was left alone."""

    def interrupt(step: Progress) -> None:
        if step.stage == "train" and step.epoch == 2 and step.done == step.total:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_tiny(tiny_bundle, chests, tmp_path, interrupt)
    assert (tmp_path / CHECKPOINT).exists()
    resumed: list[Progress] = []
    train_tiny(tiny_bundle, chests, tmp_path, resumed.append)

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


def test_evaluation_repeats(trained: tuple[Path, list[Progress]], chests: Path) -> None:
    """Evaluating the stored weights again gives the figures that training wrote, digit for digit."""
    report = evaluate(trained[0], chests, device="cpu", report=lambda _: None)

    written = tomllib.loads((trained[0] / "bundle.toml").read_text(encoding="utf-8"))["evaluation"]
    assert report.to_dict() == written


def test_calibration_repeats(trained: tuple[Path, list[Progress]], chests: Path) -> None:
    """Calibrating again finds the temperatures that training wrote and leaves the rest of the file alone."""
    before = (trained[0] / "bundle.toml").read_text(encoding="utf-8")

    calibrate(trained[0], chests, device="cpu", report=lambda _: None)

    after = (trained[0] / "bundle.toml").read_text(encoding="utf-8")
    assert tomllib.loads(after) == tomllib.loads(before)
