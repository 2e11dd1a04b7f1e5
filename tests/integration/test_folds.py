"""Cross-validation and ablation on a tiny made-up data set: every group judged once, every part one after the other."""

import csv
import shutil
import tomllib
from pathlib import Path

import pytest

from inference.bundle import load_bundle
from inference.errors import BundleError
from inference.training.ablation import Extent, ablate
from inference.training.config import read_config
from inference.training.data import Part
from inference.training.figures import write_table
from inference.training.folds import evaluate_folds, fold_dir, train_folds
from inference.training.progress import Progress


@pytest.fixture(scope="module")
def two_folds(tiny_bundle: Path, chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle with the two networks of its cross-validation beside it."""
    folder = tmp_path_factory.mktemp("two-folds")
    shutil.copytree(tiny_bundle, folder, dirs_exist_ok=True)
    table = tomllib.loads((folder / "bundle.toml").read_text(encoding="utf-8"))["training"]
    loop = {**table["loop"], "cycles": [1]}
    write_table(folder / "bundle.toml", "training", {**table, "folds": 2, "loop": loop})
    return train_folds(folder, chests, folder, device="cpu", epochs=None, seed=1, report=lambda _: None)


def test_each_group_is_judged_by_a_network_that_has_not_seen_it(two_folds: Path, chests: Path) -> None:
    """Over the folds every group is for validation once, and what each network was trained on are the others."""
    with (chests / "labels.csv").open(encoding="utf-8") as lines:
        groups = {row["group"] for row in csv.DictReader(lines)}

    configs = [read_config(load_bundle(fold_dir(two_folds, fold))) for fold in (1, 2)]

    judged = [{group for group in groups if config.part_of(group) is Part.VALIDATION} for config in configs]
    assert judged[0] | judged[1] == groups
    assert not judged[0] & judged[1]
    assert all(judged)
    for fold, held in zip((1, 2), judged, strict=True):
        learnt = load_bundle(fold_dir(two_folds, fold)).evaluation["groups"]
        assert learnt == len(held)


def test_the_folds_figures_are_told_with_their_interval(two_folds: Path, chests: Path) -> None:
    """What the folds' own evaluations say is met in the middle; description and card hold it."""
    found = evaluate_folds(two_folds, chests, device="cpu", report=lambda _: None)

    alone = [load_bundle(fold_dir(two_folds, fold)).evaluation["dice"]["right-lung"] for fold in (1, 2)]  # type: ignore[index]
    told = found["dice"]["right-lung"]  # type: ignore[index]
    assert told["mean"] == pytest.approx(sum(alone) / 2, abs=1e-4)
    assert told["low"] <= min(alone) <= max(alone) <= told["high"]
    assert found["images"] == 48
    assert tomllib.loads((two_folds / "bundle.toml").read_text(encoding="utf-8"))["cross_validation"] == found
    assert "| dice: right-lung |" in (two_folds / "README.md").read_text(encoding="utf-8")


def test_finished_folds_are_not_trained_again(two_folds: Path, chests: Path) -> None:
    """A second run finds everything there."""
    seen: list[Progress] = []

    train_folds(two_folds, chests, two_folds, device="cpu", epochs=None, seed=1, report=seen.append)

    assert seen == []


def test_folds_of_another_recipe_are_refused(two_folds: Path, chests: Path, tmp_path: Path) -> None:
    """Neither kept as if they were of this one, nor told as the bundle's figures."""
    with pytest.raises(BundleError, match="was made of another description"):
        train_folds(two_folds, chests, two_folds, device="cpu", epochs=2, seed=1, report=lambda _: None)
    with pytest.raises(BundleError, match="was made of another description"):
        train_folds(two_folds, chests, two_folds, device="cpu", epochs=None, seed=2, report=lambda _: None)

    shutil.copytree(two_folds, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "bundle.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("dropout = 0.2", "dropout = 0.3"), encoding="utf-8")
    with pytest.raises(BundleError, match="fold 1 was trained by another recipe"):
        evaluate_folds(tmp_path, chests, device="cpu", report=lambda _: None)


def test_a_missing_fold_is_named(tiny_bundle: Path, chests: Path) -> None:
    """Nothing is averaged over fewer folds than the bundle says."""
    with pytest.raises(BundleError, match=r"fold 1 is not trained"):
        evaluate_folds(tiny_bundle, chests, device="cpu", report=lambda _: None)


def test_the_ablation_adds_one_part_after_the_other(tiny_bundle: Path, chests: Path, tmp_path: Path) -> None:
    """Each variant is a network with one part more; the last has the weights of the one before, and is calibrated."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    extent = Extent(folds=1, epochs=1, size=64)

    found = ablate(tmp_path / "bundle", chests, tmp_path / "out", extent=extent, device="cpu", report=lambda _: None)

    made = {folder.name: load_bundle(folder) for folder in (tmp_path / "out" / "fold-1").iterdir()}
    parts = ("scales", "attention", "hierarchy")
    assert {name: [bundle.network[part] for part in parts] for name, bundle in made.items()} == {
        "base": [[1.0], "none", False],
        "multi-scale": [[1.0, 0.5], "none", False],
        "attention": [[1.0, 0.5], "cbam", False],
        "hierarchy": [[1.0, 0.5], "cbam", True],
        "calibration": [[1.0, 0.5], "cbam", True],
    }
    assert made["calibration"].algorithm.weights_digest == made["hierarchy"].algorithm.weights_digest
    assert made["calibration"].calibration
    assert not made["hierarchy"].calibration
    assert list(found["variants"]) == ["base", "multi-scale", "attention", "hierarchy", "calibration"]  # type: ignore[call-overload]
    bigger = Extent(folds=1, epochs=1, size=96)
    with pytest.raises(BundleError, match="was made of another description"):
        ablate(tmp_path / "bundle", chests, tmp_path / "out", extent=bigger, device="cpu", report=lambda _: None)
    assert "| + hierarchy |" in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")


def test_more_folds_than_there_are_is_refused(tiny_bundle: Path, chests: Path, tmp_path: Path) -> None:
    """The sentence says how many there are."""
    with pytest.raises(BundleError, match="has 5 folds, not 6"):
        ablate(tiny_bundle, chests, tmp_path, extent=Extent(folds=6), device="cpu", report=lambda _: None)
