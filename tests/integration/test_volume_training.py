"""Training a bundle for volumes: cross-validated, resumable, with figures that can be found again."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.predict_volume import VolumePredictor
from inference.training.progress import Progress
from inference.training.run import calibrate, evaluate
from inference.training.run_log import RUN_FILE
from inference.training.volume_data import folds_of, labelled_grid, load_cases
from tests.volume_training import CASES, describe_tiny_volumes, make_volumes, train_tiny_volumes


class Interrupted(Exception):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a data set in the layout of the Medical Segmentation Decathlon."""
    return make_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tiny bundle without weights."""
    return describe_tiny_volumes(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def trained(described: Path, volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """Give the bundle after an uninterrupted run, and what the run reported."""
    seen: list[Progress] = []
    return train_tiny_volumes(described, volumes, tmp_path_factory.mktemp("trained"), seen.append), seen


def test_every_fold_learns(trained: tuple[Path, list[Progress]]) -> None:
    """In each fold and in the final run, the mean loss of the last epoch is clearly below that of the first."""
    for stage in ("fold 1", "fold 2", "train"):
        last = {step.epoch: step.figures["total"] for step in trained[1] if step.stage == stage}
        assert last[3] < 0.8 * last[1], stage


def test_an_interrupted_run_ends_with_the_same_weights(
    trained: tuple[Path, list[Progress]], described: Path, volumes: Path, tmp_path: Path
) -> None:
    """Killed in the second fold and started again, it keeps the first fold and ends with the same weights."""

    def interrupt(step: Progress) -> None:
        if step.stage == "fold 2" and step.epoch == 2 and step.done == step.total:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_tiny_volumes(described, volumes, tmp_path, interrupt)
    resumed: list[Progress] = []
    train_tiny_volumes(described, volumes, tmp_path, resumed.append)

    assert not any(step.stage == "fold 1" for step in resumed)
    assert min(step.epoch for step in resumed if step.stage == "fold 2") == 2
    for name in ("weights.safetensors", "folds/fold-2.safetensors"):
        one, other = (load_file(folder / name) for folder in (tmp_path, trained[0]))
        assert all((one[key] == other[key]).all() for key in other)


def test_the_result_is_a_bundle_with_figures_of_cases_not_trained_on(trained: tuple[Path, list[Progress]]) -> None:
    """It loads, passes its self-test, names the weights that were judged, and tells mean and interval by segment."""
    bundle = load_bundle(trained[0])

    figures = bundle.evaluation
    assert figures["weights_sha256"] == bundle.algorithm.weights_digest
    assert (figures["cases"], figures["folds"]) == (CASES, 2)
    for name in ("anterior-hippocampus", "posterior-hippocampus"):
        overlap = figures["dice"][name]
        assert 0 <= overlap["low"] <= overlap["mean"] <= overlap["high"] <= 1
    assert bundle.self_test is not None
    assert VolumePredictor(bundle, "cpu").bundle is bundle
    assert not list(trained[0].rglob("checkpoint*"))


def test_the_run_tells_the_parts_of_the_loss_and_each_networks_weights(trained: tuple[Path, list[Progress]]) -> None:
    """Every epoch has them with the learning rate, the two parts add up, and the digests are those of the files."""
    told = json.loads((trained[0] / RUN_FILE).read_text(encoding="utf-8"))

    for epoch in told["epochs"]:
        assert epoch["total"] == pytest.approx(epoch["dice_loss"] + epoch["cross_entropy"], rel=1e-4)
        assert epoch["gradient_norm"] > 0
    rates = [epoch["learning_rate"] for epoch in told["epochs"] if epoch["stage"] == "train"]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 0
    files = {each["stage"]: each["file"] for each in told["weights"]}
    assert files == {
        "fold 1": "folds/fold-1.safetensors",
        "fold 2": "folds/fold-2.safetensors",
        "train": "weights.safetensors",
    }
    for each in told["weights"]:
        assert each["sha256"] == hashlib.sha256((trained[0] / each["file"]).read_bytes()).hexdigest()


def test_evaluation_repeats(trained: tuple[Path, list[Progress]], volumes: Path) -> None:
    """Evaluating the folds' weights again gives the figures that training wrote, digit for digit."""
    report = evaluate(trained[0], volumes, device="cpu", report=lambda _: None)

    assert report.to_dict() == tomllib.loads((trained[0] / "bundle.toml").read_text(encoding="utf-8"))["evaluation"]


def test_a_bundle_without_its_folds_is_not_judged_by_what_it_was_trained_on(
    trained: tuple[Path, list[Progress]], volumes: Path, tmp_path: Path
) -> None:
    """The error names the weights that are missing; and a bundle without classes has nothing to calibrate."""
    for name in ("bundle.toml", "weights.safetensors"):
        (tmp_path / name).write_bytes((trained[0] / name).read_bytes())

    with pytest.raises(BundleError, match="fold-1"):
        evaluate(tmp_path, volumes, device="cpu", report=lambda _: None)
    with pytest.raises(BundleError, match="no levels"):
        calibrate(tmp_path, volumes, device="cpu", report=lambda _: None)


def test_nifti_in_ras_comes_onto_the_patients_grid_in_lps(described: Path, volumes: Path) -> None:
    """The front, at high y in NIfTI, lies at low y; an image without a mask is left out; nothing else changes."""
    bundle = load_bundle(described, verify_weights=False)

    cases = load_cases(volumes, bundle, "masks", lambda *_: None)
    grid = labelled_grid(cases[0], bundle.volume, 2)

    assert len(cases) == CASES
    front, back = (float(np.argwhere(grid.shares[number].numpy() > 127)[:, 1].mean()) for number in (0, 1))
    assert front < back
    assert int((grid.shares > 127).sum()) == int((cases[0].labels > 0).sum())


def test_folds_hold_every_case_out_once(described: Path, volumes: Path) -> None:
    """They are as even as can be, and do not depend on the order of the cases."""
    cases = load_cases(volumes, load_bundle(described, verify_weights=False), "masks", lambda *_: None)

    folds = folds_of(cases, 3, seed=1)
    turned = folds_of(cases[::-1], 3, seed=1)

    assert sorted(index for fold in folds for index in fold) == list(range(CASES))
    assert {len(fold) for fold in folds} <= {2, 3}
    by_name = [{cases[index].name for index in fold} for fold in folds]
    assert by_name == [{cases[::-1][index].name for index in fold} for fold in turned]
