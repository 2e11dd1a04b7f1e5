"""Training on a tiny made-up data set: it learns, resumes to the same weights, and leaves a bundle that loads."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lxml import etree
from safetensors.numpy import load, save
from safetensors.torch import load_file
from typer.testing import CliRunner

from gateway.cli.app import app
from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.networks.weights import load_network
from inference.training.config import read_config
from inference.training.data import Part
from inference.training.figures import write_table, write_tables
from inference.training.progress import Progress
from inference.training.run import CHECKPOINT, calibrate, evaluate, load_part
from inference.training.run_log import RUN_FILE
from inference.training.watching import watching
from tests.training import train_tiny


class Interrupted(Exception):
    """Stands for a killed process."""


def test_the_loss_falls(trained: tuple[Path, list[Progress]]) -> None:
    """The mean loss of the last epoch is clearly below that of the first."""
    last_of_epoch = {step.epoch: step.figures["total"] for step in trained[1] if step.stage == "train"}

    assert last_of_epoch[3] < 0.9 * last_of_epoch[1]


def _killed_in_the_second_epoch(bundle: Path, chests: Path, out: Path) -> None:
    def kill(step: Progress) -> None:
        if step.stage == "train" and step.epoch == 2 and step.done == step.total:
            os.kill(os.getpid(), signal.SIGKILL)

    train_tiny(bundle, chests, out, kill)


def test_a_killed_run_ends_with_the_same_weights(
    trained: tuple[Path, list[Progress]], tiny_bundle: Path, chests: Path, tmp_path: Path
) -> None:
    """A run killed (SIGKILL) in its second epoch and started again ends with the weights of one that was left alone."""
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_in_the_second_epoch, args=(tiny_bundle, chests, tmp_path)
    )
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
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


def test_the_run_tells_how_the_averaged_network_does_on_calibration_groups(
    trained: tuple[Path, list[Progress]], chests: Path
) -> None:
    """Figures of each epoch, the last those of the weights that were written, rounded to float16."""
    told = json.loads((trained[0] / RUN_FILE).read_text(encoding="utf-8"))
    bundle, names = load_bundle(trained[0]), ("coarse_auc", "coarse_accuracy", "fine_auc", "dice")

    images = load_part(bundle, read_config(bundle), chests, Part.CALIBRATION, lambda _: None)
    found = watching(bundle, images)(load_network(bundle, torch.device("cpu")))

    assert all({*names, "learning_rate", "gradient_norm"} <= epoch.keys() for epoch in told["epochs"])
    assert {name: told["epochs"][-1][name] for name in names} == pytest.approx(found, abs=0.02)
    assert [each["sha256"] for each in told["weights"]] == [bundle.algorithm.weights_digest]
    assert told["weights"][0]["figures"]["dice"] == told["epochs"][-1]["dice"]
    shown = [step.figures.get("dice") for step in trained[1] if step.stage == "train"]
    assert shown[0] is None and shown[-1] == pytest.approx(told["epochs"][-1]["dice"], abs=1e-5)


@pytest.mark.parametrize(("part", "needed"), [("consistency", "hierarchy"), ("evenness", "experts")])
def test_a_part_of_the_loss_that_the_network_has_no_heads_for_is_refused(
    tiny_bundle: Path, chests: Path, tmp_path: Path, part: str, needed: str
) -> None:
    """The sentence names both, before anything is learnt."""
    shutil.copytree(tiny_bundle, tmp_path, dirs_exist_ok=True)
    table = _described(tmp_path)["training"]
    write_table(tmp_path / "bundle.toml", "training", {**table, "loss": {**table["loss"], part: 0.1}})

    with pytest.raises(BundleError, match=rf"training\.loss\.{part}: needs network\.{needed}"):
        train_tiny(tmp_path, chests, tmp_path, lambda _: None)


def test_free_heads_are_trained_calibrated_and_judged_as_others(
    tiny_bundle: Path, chests: Path, tmp_path: Path
) -> None:
    """With experts and both parts of the loss: a bundle whose levels agree, without a posterior of its last layer."""
    shutil.copytree(tiny_bundle, tmp_path, dirs_exist_ok=True)
    described = _described(tmp_path)
    loss = {**described["training"]["loss"], "consistency": 0.5, "evenness": 0.1}
    tables = {
        "network": {**described["network"], "hierarchy": "free", "experts": 2},
        "training": {**described["training"], "loss": loss},
    }
    write_tables(tmp_path / "bundle.toml", tables)

    train_tiny(tmp_path, chests, tmp_path, lambda _: None)

    bundle = load_bundle(tmp_path)
    assert bundle.laplace is None
    assert bundle.evaluation["weights_sha256"] == bundle.algorithm.weights_digest
    assert {"consistency", "evenness"} <= json.loads((tmp_path / RUN_FILE).read_text())["epochs"][-1].keys()


def test_calibration_is_told_step_by_step(trained: tuple[Path, list[Progress]]) -> None:
    """The last layer's posterior lies beside the weights, and each level's figures are told without and with it."""
    bundle = load_bundle(trained[0])

    assert bundle.laplace is not None
    assert bundle.laplace.path.stat().st_size < 1_000_000
    told = bundle.evaluation["calibration"]
    assert isinstance(told, dict)
    assert {level: list(steps) for level, steps in told.items()} == {
        level: ["uncalibrated", "temperature", "laplace"] for level in ("coarse", "fine")
    }
    assert isinstance(bundle.calibration["temperature_alone"], dict)


def test_pictures_of_an_evaluation_are_svg(trained: tuple[Path, list[Progress]], chests: Path, tmp_path: Path) -> None:
    """One of the reliability and the ROC of each level, one of the label sets; the same again byte for byte."""
    folders = [tmp_path / name for name in ("first", "second")]

    for folder in folders:
        evaluate(trained[0], chests, device="cpu", report=lambda _: None, plots=folder)

    names = ["label-sets", "reliability-coarse", "reliability-fine", "roc-coarse", "roc-fine"]
    assert sorted(file.name for file in folders[0].iterdir()) == [f"{name}.svg" for name in names]
    for file in folders[0].iterdir():
        assert etree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()


def test_evaluation_repeats(trained: tuple[Path, list[Progress]], chests: Path) -> None:
    """Evaluating the stored weights again gives the figures that training wrote, digit for digit."""
    report = evaluate(trained[0], chests, device="cpu", report=lambda _: None)

    written = tomllib.loads((trained[0] / "bundle.toml").read_text(encoding="utf-8"))["evaluation"]
    assert report.to_dict() == written


def test_calibration_repeats(trained: tuple[Path, list[Progress]], chests: Path, tmp_path: Path) -> None:
    """Calibrating again finds the temperatures that training wrote; the figures of the former calibration go."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "again"))
    before = _described(folder)

    calibrate(folder, chests, device="cpu", report=lambda _: None)

    assert _described(folder) == {name: table for name, table in before.items() if name != "evaluation"}


def test_the_command_evaluates_what_it_has_calibrated(
    trained: tuple[Path, list[Progress]], chests: Path, tmp_path: Path
) -> None:
    """Afterwards the figures are those of the new calibration."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "again"))
    before = _described(folder)
    write_table(folder / "bundle.toml", "evaluation", {"images": 0})

    done = CliRunner().invoke(app, ["calibrate", str(folder), "--data", str(chests), "--device", "cpu"])

    assert done.exit_code == 0, done.output
    assert _described(folder) == before


@pytest.mark.parametrize("at", range(1, 9))
def test_a_calibration_that_was_cut_off_leaves_a_whole_bundle(
    trained: tuple[Path, list[Progress]], chests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Killed at any change of the folder, it is the former one or the new one, and can be calibrated."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "cut"))
    _make_other(folder)
    former = _described(folder)
    changes = iter(range(1, 100))
    for name in ("write_bytes", "write_text", "replace", "unlink"):
        _cut_off(monkeypatch, name, changes, at)

    with pytest.raises(Interrupted):
        calibrate(folder, chests, device="cpu", report=lambda _: None)
    monkeypatch.undo()

    found, whole = _described(folder), _described(trained[0])
    assert load_bundle(folder).novelty is not None
    names = ("calibration", "laplace", "novelty", "evaluation")
    new = [whole["calibration"], whole["laplace"], whole["novelty"], None]
    assert [found.get(name) for name in names] in ([former.get(name) for name in names], new)
    calibrate(folder, chests, device="cpu", report=lambda _: None)
    files = {str(_described(folder)[name]["file"]) for name in ("laplace", "novelty", "weights")}
    assert {file.name for file in folder.glob("*.safetensors")} == files


def _described(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "bundle.toml").read_text(encoding="utf-8"))


def _make_other(folder: Path) -> None:
    """Give a bundle other files of its calibration, named as they were before names had a digest."""
    tables = {}
    for name in ("laplace", "novelty"):
        table = _described(folder)[name]
        file = folder / str(table["file"])
        content = save({**load(file.read_bytes()), "more": np.zeros(1, dtype=np.float32)})
        file.unlink()
        (folder / f"{name}.safetensors").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        tables[name] = {**table, "file": f"{name}.safetensors", "sha256": digest}
    tables["calibration"] = {**_described(folder)["calibration"], "images": 1}
    write_tables(folder / "bundle.toml", tables)


def _cut_off(monkeypatch: pytest.MonkeyPatch, name: str, changes: Iterator[int], at: int) -> None:
    """Let the process end before the change number `at` that is made to a file."""
    change = getattr(Path, name)

    def cut(path: Path, *arguments: object, **options: object) -> object:
        if next(changes) >= at:
            raise Interrupted
        return change(path, *arguments, **options)

    monkeypatch.setattr(Path, name, cut)
